"""What the server sends, as OpenAI defines it. Fields stand in the order of the wire; JSON is compact UTF-8."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import BaseModel, Field

from turnwise_server.api.moderations.wire import ReplyModeration

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def encode_json(value: object) -> bytes:
    """Return compact JSON in UTF-8. NaN and infinities, which are not JSON, raise ValueError."""
    return _ENCODER.encode(value).encode()


class TopLogprob(BaseModel):
    """A token and its natural-log probability."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    """A generated token and the likeliest tokens in its place."""

    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(BaseModel):
    """The tokens of one choice."""

    content: list[TokenLogprob] | None
    refusal: list[TokenLogprob] | None = None


class PromptTokensDetails(BaseModel):
    """What became of the prompt."""

    cached_tokens: int = 0
    audio_tokens: int = 0
    x_truncated_messages: int | None = Field(default=None, exclude_if=lambda value: value is None)
    """Extension: how many messages were dropped because the conversation was too long; absent when none was."""


class CompletionTokensDetails(BaseModel):
    """Always zeros: no reasoning, audio or prediction here."""

    reasoning_tokens: int = 0
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class Usage(BaseModel):
    """Tokens of the prompt, counted once, and of the reply, summed over its choices."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails = CompletionTokensDetails()


class FunctionCall(BaseModel):
    """Which function to call, and with what: `arguments` is a JSON object as text."""

    name: str
    arguments: str


class MessageToolCall(BaseModel):
    """A call of one of the request's tools."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class AssistantMessage(BaseModel):
    """The reply. Content is null where the model only calls tools; `tool_calls` is absent where it calls none."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: str | None = None
    annotations: list[object] = []
    tool_calls: list[MessageToolCall] | None = Field(default=None, exclude_if=lambda value: value is None)


FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class RefusalSignal(BaseModel):
    """Extension: that the policy refused a choice, for programs; `category` is `policy` where it is not revealed."""

    stage: Literal["input", "output"]
    category: str


class Choice(BaseModel):
    """One of `n` replies."""

    index: int
    message: AssistantMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: FinishReason
    x_refusal: RefusalSignal | None = Field(default=None, exclude_if=lambda value: value is None)


class ChatCompletion(BaseModel):
    """A whole reply."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    service_tier: Literal["default"] = "default"
    system_fingerprint: str
    moderation: ReplyModeration | None = Field(default=None, exclude_if=lambda value: value is None)


class ChatCompletionDeleted(BaseModel):
    """A stored chat completion that is stored no longer."""

    object: Literal["chat.completion.deleted"] = "chat.completion.deleted"
    id: str
    deleted: Literal[True] = True


class FunctionCallDelta(BaseModel):
    """More of a function's call; the name comes once."""

    name: str | None = None
    arguments: str


class ToolCallChunk(BaseModel):
    """More of a tool call; id and type come once."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionCallDelta


class ChunkDelta(BaseModel):
    """What a chunk adds to a message."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCallChunk] | None = None


class Retraction(BaseModel):
    """Extension: what was shown of a choice so far is to be taken back."""

    retract: Literal[True] = True


class ChunkChoice(BaseModel):
    """A chunk's share in one choice."""

    index: int
    delta: ChunkDelta
    logprobs: ChoiceLogprobs | None = None
    finish_reason: FinishReason | None
    x_refusal: RefusalSignal | None = Field(default=None, exclude_if=lambda value: value is None)
    x_moderation: Retraction | None = Field(default=None, exclude_if=lambda value: value is None)


class ChatCompletionChunk(BaseModel):
    """One event of a streamed reply."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    service_tier: Literal["default"] = "default"
    system_fingerprint: str
    choices: list[ChunkChoice]
    moderation: ReplyModeration | None = Field(default=None, exclude_if=lambda value: value is None)
    usage: Usage | None = None


class ModelCard(BaseModel):
    """A served model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    max_model_len: int
    """Extension: the longest prompt plus reply, in tokens."""
    default_max_tokens: int
    """Extension: the length limit of a reply when the request names none."""


class ModelList(BaseModel):
    """Every served model."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class LoadedModel(BaseModel):
    """A served model as the administrator sees it."""

    id: str
    object: Literal["admin.model"] = "admin.model"
    created: int
    """When it was loaded, in seconds since 1970."""
    path: str
    system_fingerprint: str
    max_model_len: int
    requests: int
    """How many requests use it now."""


class LoadedModelList(BaseModel):
    """Every served model as the administrator sees it, the default first."""

    object: Literal["list"] = "list"
    data: list[LoadedModel]


class ModelDeleted(BaseModel):
    """A model that is served no longer."""

    id: str
    object: Literal["admin.model.deleted"] = "admin.model.deleted"
    deleted: Literal[True] = True


Fault = Literal["policy_not_loaded", "no_classifier", "audit_not_written"]


class Health(BaseModel):
    """The answer of /health: 200 as long as the process answers."""

    status: Literal["ok", "degraded"] = "ok"
    faults: list[Fault] = Field(default_factory=list)
    """What is not as it should be: the policy's file is wrong, so an older one is in force; nothing is checked;
    decisions cannot be recorded."""


class Readiness(BaseModel):
    """The answer of /ready."""

    status: Literal["ready"] = "ready"
    running: int
    """Replies that are being generated."""
    waiting: int
    """Replies that wait for a place."""


class ErrorObject(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every error."""

    error: ErrorObject
