"""Read OpenAI's JSON: chunks, whole replies, model lists and errors. Pure functions; it knows no HTTP.

What a server sends is not trusted to have the right shape: whatever cannot be read is a `BrokenReplyError`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

from turnwise_client.conversation import Usage
from turnwise_client.errors import BrokenReplyError

DONE = "[DONE]"
_CONTEXT_KEYS = ("max_model_len", "context_length", "context_window")


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model the server offers."""

    id: str
    context_length: int | None = None
    """Tokens the model can see, when the server says so (an extension that vLLM began)."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one event of a stream, or a whole reply, says about the first choice."""

    text: str = ""
    finish_reason: str | None = None
    refusal: str | None = None
    retracts: bool = False
    """Whether what was said before is taken back: `text` and what follows is all."""
    usage: Usage | None = None
    model: str = ""


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """OpenAI's error object."""

    message: str
    code: str | None = None


def _is_object(value: object) -> TypeGuard[Mapping[str, object]]:
    return isinstance(value, dict)


def _object(parent: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = parent.get(key)
    return value if _is_object(value) else {}


def _text(parent: Mapping[str, object], key: str) -> str:
    value = parent.get(key)
    return value if isinstance(value, str) else ""


def _count(parent: Mapping[str, object], key: str) -> int | None:
    value = parent.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def read_json(text: str) -> Mapping[str, object]:
    """Parse a JSON object.

    Raises:
        BrokenReplyError: it is not JSON, or not an object.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BrokenReplyError("the server sent something that is not JSON") from error
    if not _is_object(value):
        raise BrokenReplyError("the server sent JSON of an unexpected shape")
    return value


def read_error(body: Mapping[str, object]) -> ErrorBody | None:
    """Return the error in `body`, if there is one. `{"error": "text"}` is understood too: some servers send it."""
    error = body.get("error")
    if isinstance(error, str):
        return ErrorBody(error)
    if not _is_object(error):
        return None
    return ErrorBody(_text(error, "message") or "no reason given", _text(error, "code") or None)


def read_usage(body: Mapping[str, object]) -> Usage | None:
    """Return the token counts of a reply or of a stream's last event."""
    usage = _object(body, "usage")
    prompt_tokens, completion_tokens = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    if prompt_tokens is None or completion_tokens is None:
        return None
    return Usage(prompt_tokens, completion_tokens)


def _read_refusal(choice: Mapping[str, object]) -> str | None:
    signal = choice.get("x_refusal")
    if not _is_object(signal):
        return None
    return "/".join(part for part in (_text(signal, "stage"), _text(signal, "category")) if part) or "policy"


def _read_choice(body: Mapping[str, object], message_key: str) -> Chunk:
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else {}
    if not _is_object(choice):
        raise BrokenReplyError("the server sent a reply of an unexpected shape")
    message = _object(choice, message_key)
    refusal_text = _text(message, "refusal")
    return Chunk(
        text=_text(message, "content") or refusal_text,
        finish_reason=_text(choice, "finish_reason") or None,
        refusal=_read_refusal(choice) or ("policy" if refusal_text else None),
        retracts=_object(choice, "x_moderation").get("retract") is True,
        usage=read_usage(body),
        model=_text(body, "model"),
    )


def read_chunk(body: Mapping[str, object]) -> Chunk:
    """Read one `chat.completion.chunk`."""
    return _read_choice(body, "delta")


def read_completion(body: Mapping[str, object]) -> Chunk:
    """Read a whole `chat.completion`."""
    return _read_choice(body, "message")


def read_models(body: Mapping[str, object]) -> tuple[ModelInfo, ...]:
    """Read the answer of GET /v1/models, in the server's order."""
    data = body.get("data")
    if not isinstance(data, list):
        raise BrokenReplyError("the server sent a list of models of an unexpected shape")
    return tuple(_read_model(entry) for entry in data if _is_object(entry) and _text(entry, "id"))


def _read_model(entry: Mapping[str, object]) -> ModelInfo:
    lengths = (_count(entry, key) for key in _CONTEXT_KEYS)
    return ModelInfo(_text(entry, "id"), next((length for length in lengths if length), None))
