"""The bodies of POST /v1/messages and its count_tokens: Anthropic's parameters, and what they ask of the chat layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from turnwise_server.api.anthropic.messages import Blocks, Prompt, TurnMessage, make_prompt
from turnwise_server.api.anthropic.tools import RequestTool, ToolChoice, tool_use
from turnwise_server.api.chat_completions.request import check_message_count
from turnwise_server.api.chat_completions.tools import MAX_TOOLS
from turnwise_server.api.sampling_request import Count, Label, ModelName, StopString, Unsupported
from turnwise_server.api.validation import (
    Decimal,
    RequestModel,
    fault,
    validate,
)
from turnwise_server.chat.messages import ClientMessage
from turnwise_server.chat.structured import json_schema_grammar
from turnwise_server.chat.template import PromptEnd
from turnwise_server.chat.turn import Truncation, TurnRequest
from turnwise_server.errors import RequestError

MAX_STOP_SEQUENCES = 16
MAX_TOP_K = 2**31 - 1


def _disabled(value: Mapping[str, object]) -> Mapping[str, object]:
    if value.get("type") == "disabled":
        return value
    raise fault(
        "unsupported_value",
        "Unsupported value: '{param}' supports only {'type': 'disabled'} with this model.",
    )


def _no_thread(value: object) -> object:
    """Refuse to keep a conversation, by the code on which Anthropic's SDK goes on without that."""
    if value is None:
        return value
    raise fault(
        "thread_unsupported_request",
        "Unsupported parameter: '{param}': this server keeps no threads. Send the whole conversation.",
    )


class OutputFormat(RequestModel):
    """The JSON that a reply has to be."""

    type: Literal["json_schema"]
    json_schema: Annotated[dict[str, object], Field(alias="schema")]


class OutputConfig(RequestModel):
    """The form of the reply, and how hard the model tries, which this one cannot choose."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class UserMetadata(RequestModel):
    """Whom the request is made for; without effect."""

    user_id: Label | None = None


class CountTokensRequest(RequestModel):
    """What makes the prompt."""

    model: ModelName | None = None
    messages: Annotated[list[TurnMessage], Field(min_length=1, fail_fast=True)]
    system: Blocks | None = None
    tools: Annotated[list[RequestTool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Annotated[dict[str, object], AfterValidator(_disabled)] | None = None
    output_config: OutputConfig | None = None
    cache_control: dict[str, object] | None = None
    thread: Annotated[object, AfterValidator(_no_thread)] = None

    @property
    def prompt(self) -> Prompt:
        """What the model reads.

        Raises:
            RequestError: a block is incomplete, or of a kind that this server does not have.
        """
        return make_prompt(self.system, self.messages)

    @property
    def end(self) -> PromptEnd:
        """Where the prompt ends: a last message of the assistant is continued."""
        return PromptEnd.OPEN if self.messages[-1].role == "assistant" else PromptEnd.REPLY


class MessagesRequest(CountTokensRequest):
    """Anthropic's parameters."""

    max_tokens: Count
    stream: bool | None = None
    stop_sequences: (
        Annotated[list[StopString], Field(max_length=MAX_STOP_SEQUENCES, fail_fast=True)] | None
    ) = None
    temperature: Annotated[Decimal, Field(ge=0, le=1)] | None = None
    top_p: Annotated[Decimal, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=MAX_TOP_K)] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: UserMetadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    container: Unsupported = None
    context_management: Unsupported = None
    mcp_servers: Unsupported = None


def parse_count_request(body: Mapping[str, object], *, max_messages: int) -> CountTokensRequest:
    """Check everything about a prompt that can be checked without the model.

    Raises:
        RequestError: naming what is wrong.
    """
    check_message_count(body, max_messages)
    return validate(CountTokensRequest, body)


def parse_messages_request(body: Mapping[str, object], *, max_messages: int) -> MessagesRequest:
    """Check everything about a request that can be checked without the model.

    Raises:
        RequestError: naming what is wrong.
    """
    check_message_count(body, max_messages)
    return validate(MessagesRequest, body)


def messages_turn(
    request: MessagesRequest,
    messages: tuple[ClientMessage, ...],
    *,
    id: str,  # noqa: A002 - the field's name on the wire
    tenant: str,
    default_truncation: Truncation,
) -> TurnRequest:
    """Return what the chat layer has to do.

    Raises:
        RequestError: a tool is incomplete, or replies cannot be held to the form.
    """
    return TurnRequest(
        id=id,
        messages=messages,
        end=request.end,
        tenant=tenant,
        max_tokens=request.max_tokens,
        stop=tuple(request.stop_sequences or ()),
        truncation=request.truncation or default_truncation,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        grammar=_grammar(request),
        tools=tool_use(request.tools or (), request.tool_choice),
    )


def _grammar(request: MessagesRequest) -> str | None:
    form = None if request.output_config is None else request.output_config.format
    if form is None:
        return None
    if request.stop_sequences:
        raise RequestError(
            "Invalid 'stop_sequences': beside 'output_config.format' one of them would cut the JSON.",
            param="stop_sequences",
            code="invalid_value",
        )
    return json_schema_grammar(form.json_schema, param="output_config.format.schema")
