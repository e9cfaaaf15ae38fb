"""The body of POST /v1/responses: which parameters exist, their limits, and what they ask of the chat layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, Tag

from turnwise_server.api.chat_completions.response_format import format_grammar
from turnwise_server.api.chat_completions.tools import MAX_TOOLS, tool_use
from turnwise_server.api.responses.items import InputItem
from turnwise_server.api.responses.tools import FlatTool, FlatToolChoice, TextFormat, flat
from turnwise_server.api.sampling_request import MAX_TOKENS, Label, TokenChoice, Unsupported
from turnwise_server.api.validation import (
    Metadata,
    NoNul,
    RequestModel,
    Text,
    missing_parameter,
    string_or_array,
    validate,
)
from turnwise_server.chat.messages import ClientMessage
from turnwise_server.chat.turn import TurnRequest
from turnwise_server.errors import RequestError

MIN_OUTPUT_TOKENS = 16
LOGPROBS = "message.output_text.logprobs"

Includable = Literal[
    "message.output_text.logprobs",
    "message.input_image.image_url",
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Summary = Literal["auto", "concise", "detailed"]


class TextOptions(RequestModel):
    """The form of the text."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningOptions(RequestModel):
    """Accepted for clients that always send it: the models here do not reason apart from their text."""

    effort: Effort | None = None
    summary: Summary | None = None
    generate_summary: Summary | None = None
    context: Literal["auto", "current_turn", "all_turns"] | None = None
    mode: Annotated[str, Field(max_length=64)] | None = None


class ResponseStreamOptions(RequestModel):
    """What a stream carries besides text."""

    include_obfuscation: bool | None = None


class PromptRequest(RequestModel):
    """What makes up the prompt: shared by responses and the counting of their tokens."""

    model: Annotated[str, Field(min_length=1)] | None = None
    input: (
        Annotated[
            Annotated[Text, Tag("string")]
            | Annotated[list[InputItem], Field(min_length=1, fail_fast=True), Tag("array")],
            string_or_array("objects"),
        ]
        | None
    ) = None
    instructions: Text | None = None
    previous_response_id: Annotated[str, Field(min_length=1, max_length=128), NoNul] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    tools: Annotated[list[FlatTool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_choice: FlatToolChoice | None = None
    parallel_tool_calls: bool | None = None
    conversation: Unsupported = None
    personality: Unsupported = None

    def prompt_turn(
        self, messages: tuple[ClientMessage, ...], *, response_id: str, tenant: str
    ) -> TurnRequest:
        """Return what the chat layer has to do to make the prompt.

        Raises:
            RequestError: tools, their choice or the text's form cannot be served.
        """
        try:
            tools = tool_use(self.tools, self.tool_choice, is_parallel=self.parallel_tool_calls)
            grammar = format_grammar(self.text.format if self.text else None, param="text.format")
        except RequestError as error:
            raise flat(error) from error
        return TurnRequest(
            id=response_id,
            messages=messages,
            tenant=tenant,
            truncation=self.truncation or "disabled",
            grammar=grammar,
            tools=tools,
        )


class ResponseRequest(PromptRequest, TokenChoice):
    """OpenAI's parameters, and the sampling extensions of other servers."""

    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    background: bool | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    max_output_tokens: Annotated[int, Field(ge=MIN_OUTPUT_TOKENS, le=MAX_TOKENS)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    include: Annotated[list[Includable], Field(max_length=16)] | None = None

    prompt: Unsupported = None
    context_management: Unsupported = None
    moderation: Unsupported = None
    background_options: Unsupported = None
    access_programs: Unsupported = None

    max_tool_calls: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    image: dict[str, object] | None = None
    user: Label | None = None
    safety_identifier: Label | None = None
    prompt_cache_key: Label | None = None
    prompt_cache_options: dict[str, object] | None = None
    prompt_cache_retention: Label | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"] | None = None

    @property
    def has_logprobs(self) -> bool:
        """Whether the reply tells how likely its tokens were."""
        return LOGPROBS in (self.include or ()) or bool(self.top_logprobs)

    def turn(
        self,
        messages: tuple[ClientMessage, ...],
        *,
        response_id: str,
        tenant: str,
        default_max_tokens: int,
    ) -> TurnRequest:
        """Return what the chat layer has to do.

        Raises:
            RequestError: tools, their choice or the text's form cannot be served.
        """
        turn = replace(
            self.prompt_turn(messages, response_id=response_id, tenant=tenant),
            max_tokens=self.max_output_tokens or default_max_tokens,
            top_logprobs=(self.top_logprobs or 0) if self.has_logprobs else None,
        )
        return self.choosing(turn)


def parse_response_request(body: Mapping[str, object], *, max_items: int) -> ResponseRequest:
    """Check everything about a request that can be checked without the model and the store.

    Raises:
        RequestError: with OpenAI's message, code and param.
    """
    _check_input(body, max_items)
    request = validate(ResponseRequest, body)
    if request.stream_options is not None and not request.stream:
        raise RequestError(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            param="stream_options",
            code="invalid_value",
        )
    if request.background and request.store is False:
        raise RequestError(
            "A background response has to be stored: it cannot be asked for with 'store' set to false.",
            param="background",
            code="invalid_value",
        )
    return request


def parse_prompt_request(body: Mapping[str, object], *, max_items: int) -> PromptRequest:
    """Check a request that only asks how long its prompt is.

    Raises:
        RequestError: with OpenAI's message, code and param.
    """
    _check_input(body, max_items)
    return validate(PromptRequest, body)


def _check_input(body: Mapping[str, object], max_items: int) -> None:
    """Refuse a missing input, and one of so many items that checking each would take long."""
    given = body.get("input")
    if given is None and body.get("previous_response_id") is None:
        raise missing_parameter("input")
    if isinstance(given, list) and len(given) > max_items:
        raise RequestError(
            f"Invalid 'input': array too long. Expected an array with maximum length {max_items}, "
            f"but got an array with length {len(given)} instead.",
            param="input",
            code="array_above_max_length",
        )
