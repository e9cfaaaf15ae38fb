"""What the routes of /v1/responses send, as OpenAI defines it. Fields stand in the order of the wire."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from turnwise_server.api.wire import RefusalSignal, TokenLogprob

Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]
IncompleteReason = Literal["max_output_tokens", "content_filter"]


class OutputText(BaseModel):
    """Text of a reply."""

    type: Literal["output_text"] = "output_text"
    annotations: list[object] = []
    logprobs: list[TokenLogprob] = []
    text: str = ""


class OutputRefusal(BaseModel):
    """What a reply says in place of an answer."""

    type: Literal["refusal"] = "refusal"
    refusal: str


class OutputMessage(BaseModel):
    """A message of a reply."""

    id: str
    type: Literal["message"] = "message"
    status: ItemStatus
    content: list[Annotated[OutputText | OutputRefusal, Field(discriminator="type")]]
    role: Literal["assistant"] = "assistant"
    x_refusal: RefusalSignal | None = Field(default=None, exclude_if=lambda value: value is None)


class FunctionCall(BaseModel):
    """A call of one of the client's functions; the client is to answer with its output."""

    id: str
    type: Literal["function_call"] = "function_call"
    status: ItemStatus
    arguments: str
    """JSON, unless the call is incomplete."""
    call_id: str
    name: str


OutputItem = OutputMessage | FunctionCall


class InputTokensDetails(BaseModel):
    """What became of the prompt."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0
    x_truncated_messages: int | None = Field(default=None, exclude_if=lambda value: value is None)
    """Extension: how many messages were dropped because the conversation was too long; absent when none was."""


class OutputTokensDetails(BaseModel):
    """Always zero: the models here do not reason apart from their text."""

    reasoning_tokens: int = 0


class ResponseUsage(BaseModel):
    """Tokens of the prompt and of the reply."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    total_tokens: int


class ResponseError(BaseModel):
    """Why a response failed."""

    code: Literal["server_error"] = "server_error"
    message: str


class IncompleteDetails(BaseModel):
    """Why a response ends early."""

    reason: IncompleteReason


class ModelResponse(BaseModel):
    """A response with the settings that it was made with."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Status
    background: bool
    completed_at: int | None = None
    error: ResponseError | None = None
    frequency_penalty: float
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    model: str
    output: list[Annotated[OutputItem, Field(discriminator="type")]] = []
    parallel_tool_calls: bool
    presence_penalty: float
    previous_response_id: str | None
    prompt_cache_key: str | None
    prompt_cache_retention: str | None
    reasoning: dict[str, Any]
    safety_identifier: str | None
    service_tier: Literal["default"] = "default"
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["auto", "disabled"]
    usage: ResponseUsage | None = None
    user: str | None
    metadata: dict[str, str]


class ResponseEvent(BaseModel):
    """One event of a streamed response; which more fields it has depends on its type."""

    type: str
    sequence_number: int


class ResponseDeleted(BaseModel):
    """A stored response that is no more."""

    id: str
    object: Literal["response.deleted"] = "response.deleted"
    deleted: Literal[True] = True


class InputTokens(BaseModel):
    """How long a prompt is."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int
