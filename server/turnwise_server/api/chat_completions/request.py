"""The body of POST /v1/chat/completions: which parameters exist, their limits, and what they ask of the chat layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, Tag

from turnwise_server.api.chat_completions.moderation import RequestedModeration
from turnwise_server.api.chat_completions.response_format import ResponseFormat, check_stop, format_grammar
from turnwise_server.api.chat_completions.tools import (
    CallId,
    ToolCalls,
    ToolChoice,
    Tools,
    tool_calls,
    tool_use,
)
from turnwise_server.api.prompt_end import prompt_end
from turnwise_server.api.sampling_request import Count, Label, SamplingRequest, Unsupported
from turnwise_server.api.validation import (
    Metadata,
    NoNul,
    RequestModel,
    Text,
    fault,
    missing_parameter,
    string_or_array,
    validate,
)
from turnwise_server.chat.messages import ClientMessage, ContentPart
from turnwise_server.chat.template import PromptEnd
from turnwise_server.chat.turn import TurnRequest
from turnwise_server.errors import RequestError

MAX_PARTS = 2048


def _text_only(value: list[str]) -> list[str]:
    if set(value) <= {"text"}:
        return value
    raise fault("unsupported_value", "Unsupported value: '{param}' supports only 'text' with this model.")


class RequestPart(RequestModel):
    """A part of a message's content."""

    type: Literal["text", "refusal", "image_url", "input_audio", "file"]
    text: Text | None = None
    refusal: Text | None = None


Parts = Annotated[list[RequestPart], Field(max_length=MAX_PARTS, fail_fast=True)]


class RequestMessage(RequestModel):
    """A message of the conversation so far."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: (
        Annotated[
            Annotated[Text, Tag("string")] | Annotated[Parts, Tag("array")],
            string_or_array("objects"),
        ]
        | None
    ) = None
    refusal: Text | None = None
    name: Annotated[str, Field(max_length=256), NoNul] | None = None
    tool_calls: ToolCalls | None = None
    tool_call_id: CallId | None = None
    function_call: Unsupported = None


class ChatCompletionRequest(SamplingRequest):
    """OpenAI's parameters, and a few of other servers."""

    messages: Annotated[list[RequestMessage], Field(min_length=1, fail_fast=True)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    truncation: Literal["auto", "disabled"] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None

    moderation: RequestedModeration | None = None
    response_format: ResponseFormat | None = None
    modalities: Annotated[list[str], AfterValidator(_text_only)] | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    functions: Unsupported = None
    function_call: Unsupported = None
    audio: Unsupported = None
    web_search_options: Unsupported = None
    chat_template: Unsupported = None

    safety_identifier: Label | None = None
    prompt_cache_key: Label | None = None
    prompt_cache_options: dict[str, object] | None = None
    prompt_cache_retention: Label | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority"] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    parallel_tool_calls: bool | None = None
    store: bool | None = None
    metadata: Metadata | None = None


def parse_chat_request(body: Mapping[str, object], *, max_messages: int) -> ChatCompletionRequest:
    """Check everything about a request that can be checked without the model.

    Raises:
        RequestError: with OpenAI's message, code and param.
    """
    check_message_count(body, max_messages)
    request = validate(ChatCompletionRequest, body)
    _check_together(request)
    return request


def check_message_count(body: Mapping[str, object], max_messages: int) -> None:
    """Refuse too many messages before one of them is read.

    Raises:
        RequestError: naming `messages`.
    """
    messages = body.get("messages")
    if isinstance(messages, list) and len(messages) > max_messages:
        raise RequestError(
            f"Invalid 'messages': array too long. Expected an array with maximum length {max_messages}, "
            f"but got an array with length {len(messages)} instead.",
            param="messages",
            code="array_above_max_length",
        )


def turn_request(
    request: ChatCompletionRequest,
    *,
    id: str,  # noqa: A002 - the field's name on the wire
    tenant: str,
    default_max_tokens: int,
    default_truncation: Literal["auto", "disabled"],
) -> TurnRequest:
    """Return what the chat layer has to do.

    Raises:
        RequestError: a message is incomplete, a tool is chosen that is not there, or replies cannot be held to the form
            that is asked for.
    """
    return replace(
        request.sampling_turn(id=id, tenant=tenant),
        messages=client_messages(request.messages),
        end=_prompt_end(request),
        max_tokens=request.max_completion_tokens or request.max_tokens or default_max_tokens,
        truncation=request.truncation or default_truncation,
        top_logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        grammar=format_grammar(request.response_format),
        tools=tool_use(request.tools, request.tool_choice, is_parallel=request.parallel_tool_calls),
    )


def _check_together(request: ChatCompletionRequest) -> None:
    """Refuse parameters that are right alone and wrong together."""
    request.check_stream_options()
    check_stop(request.response_format, request.stop)
    if request.top_logprobs is not None and not request.logprobs:
        raise RequestError(
            "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.",
            param="top_logprobs",
            code="invalid_value",
        )
    limits = {request.max_tokens, request.max_completion_tokens} - {None}
    if len(limits) > 1:
        raise RequestError(
            "'max_tokens' and 'max_completion_tokens' mean the same and were given different values.",
            param="max_completion_tokens",
            code="invalid_value",
        )


def client_messages(messages: Sequence[RequestMessage]) -> tuple[ClientMessage, ...]:
    """Return messages as the chat layer knows them.

    Raises:
        RequestError: a message is incomplete.
    """
    return tuple(_client_message(message, index) for index, message in enumerate(messages))


def _prompt_end(request: ChatCompletionRequest) -> PromptEnd:
    end = prompt_end(
        add_generation_prompt=request.add_generation_prompt,
        continue_final_message=request.continue_final_message,
    )
    if end is PromptEnd.CLOSED:
        raise RequestError(
            "Unsupported value: 'add_generation_prompt' can be false only together with 'continue_final_message'.",
            param="add_generation_prompt",
            code="unsupported_value",
        )
    return end


def _client_message(message: RequestMessage, index: int) -> ClientMessage:
    path = f"messages[{index}]"
    if message.role != "assistant" and "content" not in message.model_fields_set:
        raise missing_parameter(f"{path}.content")
    parts = message.content
    content = (
        tuple(_content_part(part, f"{path}.content[{at}]") for at, part in enumerate(parts))
        if isinstance(parts, list)
        else parts
    )
    return ClientMessage(
        message.role,
        content,
        message.refusal,
        message.name,
        tool_calls=tool_calls(message.tool_calls),
        tool_call_id=message.tool_call_id,
    )


def _content_part(part: RequestPart, path: str) -> ContentPart:
    if part.type == "text":
        if part.text is None:
            raise missing_parameter(f"{path}.text")
        return ContentPart("text", part.text)
    if part.type == "refusal" and part.refusal is None:
        raise missing_parameter(f"{path}.refusal")
    return ContentPart(part.type, part.refusal or "")
