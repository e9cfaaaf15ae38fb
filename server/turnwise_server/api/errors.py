"""Turns every failure into OpenAI's error object: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from turnwise_server.api.wire import encode_json
from turnwise_server.chat.refusal.verdict import ModerationUnavailableError
from turnwise_server.errors import (
    ContextLengthError,
    EngineDeadError,
    EngineError,
    GrammarError,
    QueueFullError,
    RateLimitError,
    RequestError,
    StoreError,
    TurnwiseError,
)

ERROR_CODES: Mapping[str, int] = {
    "array_above_max_length": 400,
    "context_length_exceeded": 400,
    "decimal_above_max_value": 400,
    "decimal_below_min_value": 400,
    "empty_array": 400,
    "empty_string": 400,
    "integer_above_max_value": 400,
    "integer_below_min_value": 400,
    "invalid_json": 400,
    "invalid_type": 400,
    "invalid_value": 400,
    "missing_required_parameter": 400,
    "model_not_loaded": 400,
    "no_classifier": 400,
    "object_above_max_properties": 400,
    "previous_response_not_found": 400,
    "string_above_max_length": 400,
    "thread_unsupported_request": 400,
    "unknown_parameter": 400,
    "unsupported_parameter": 400,
    "unsupported_value": 400,
    "invalid_api_key": 401,
    "insufficient_scope": 403,
    "invalid_host": 403,
    "invalid_origin": 403,
    "model_not_found": 404,
    "not_found": 404,
    "unknown_url": 404,
    "request_timeout": 408,
    "default_model_needed": 409,
    "model_is_loading": 409,
    "running_elsewhere": 409,
    "request_too_large": 413,
    "unsupported_media_type": 415,
    "rate_limit_exceeded": 429,
    "engine_stalled": 503,
    "engine_unavailable": 503,
    "moderation_unavailable": 503,
    "server_is_overloaded": 503,
    "shutting_down": 503,
    "storage_unavailable": 503,
    "timeout": 504,
}
"""Every code on the wire and its status. Each is explained in docs/http-api.md; a test compares them."""

RETRY_SOON_S = 2
RETRY_LATER_S = 5
RETRY_NEVER_S = 60
"""For clients that try again though they are told not to."""

_LIMITED = {
    "requests": "requests per minute",
    "tokens": "tokens per minute",
    "concurrent": "requests at the same time",
}


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An error as the client will see it."""

    status: int
    message: str
    type: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, int] = field(default_factory=dict)
    """More keys of the error object, after OpenAI's four."""

    def body(self) -> bytes:
        """Return the error object as JSON."""
        error = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
            **self.details,
        }
        return encode_json({"error": error})


class ApiError(TurnwiseError):
    """A refusal that only HTTP knows: keys, hosts, unknown addresses, sizes, deadlines."""

    def __init__(self, reply: ErrorReply) -> None:
        super().__init__(reply.message)
        self.reply = reply


def error_reply(error: Exception, request_id: str = "") -> ErrorReply:
    """Return what the client learns about an error; nothing of what is inside for one that was not expected."""
    match error:
        case ApiError():
            return error.reply
        case ContextLengthError():
            details = {"n_prompt_tokens": error.prompt_tokens, "n_ctx": error.context_length}
            return ErrorReply(400, error.message, code=error.code, param=error.param, details=details)
        case RequestError():
            return ErrorReply(400, error.message, code=error.code, param=error.param)
        case RateLimitError():
            return rate_limited(error)
        case QueueFullError():
            return overloaded()
        case StoreError():
            return storage_unavailable()
        case GrammarError():
            return grammar_too_complex()
        case ModerationUnavailableError():
            return moderation_unavailable()
        case EngineDeadError() | EngineError():
            return engine_unavailable()
        case _:
            return internal_error(request_id)


def moderation_unavailable() -> ErrorReply:
    """A text could not be checked that may not pass unchecked. It is no refusal."""
    return ErrorReply(
        503,
        "The request could not be checked, and what is not checked is not answered. It may succeed in a moment.",
        type="server_error",
        code="moderation_unavailable",
        headers={"retry-after": str(RETRY_SOON_S)},
    )


def invalid_json(reason: str) -> ErrorReply:
    """The body is not a JSON object."""
    return ErrorReply(
        400,
        "We could not parse the JSON body of your request. The server expects a JSON object, sent with the header "
        f"'content-type: application/json'. What is wrong: {reason}.",
        code="invalid_json",
    )


def invalid_api_key(*, is_missing: bool) -> ErrorReply:
    """The key is missing or unknown. The key itself is never repeated."""
    problem = "No API key provided." if is_missing else "Incorrect API key provided."
    return ErrorReply(
        401,
        f"{problem} Send a key of this server in the header 'Authorization: Bearer YOUR_KEY' (or 'x-api-key').",
        code="invalid_api_key",
        headers={"www-authenticate": "Bearer"},
    )


def insufficient_scope(scope: str, *, has_keys: bool) -> ErrorReply:
    """The key may not do this; a server that others reach without keys lets nobody do it."""
    problem = "Your API key does not have" if has_keys else "This server has no API keys, so nobody here has"
    return ErrorReply(
        403,
        f"{problem} the scope {scope!r}. `turnwise-server hash-key --scope {scope}` makes a key that has it.",
        type="permission_error",
        code="insufficient_scope",
    )


def invalid_host(message: str, code: str) -> ErrorReply:
    """A web page of somebody else tries to use a server that is meant for this machine alone."""
    return ErrorReply(403, message, type="permission_error", code=code)


def model_not_found(name: str) -> ErrorReply:
    """No model of that name is served."""
    return ErrorReply(
        404,
        f"The model `{shorten(name)}` does not exist or you do not have access to it.",
        code="model_not_found",
    )


def missing_model() -> ErrorReply:
    """The request names no model, and this server does not choose one for it."""
    return ErrorReply(
        400,
        "Missing required parameter: 'model'.",
        code="missing_required_parameter",
        param="model",
    )


def model_not_loaded(reason: str) -> ErrorReply:
    """The checkpoint that was to be served cannot be."""
    return ErrorReply(
        400,
        f"The model was not loaded, and what was served before still is: {reason}",
        code="model_not_loaded",
        param="path",
    )


def model_is_loading(name: str) -> ErrorReply:
    """Two checkpoints at once for one name."""
    return ErrorReply(
        409,
        f"Another checkpoint is being loaded for the model {shorten(name)!r}. Try again when that is done.",
        code="model_is_loading",
    )


def default_model_needed(name: str) -> ErrorReply:
    """There must always be a model."""
    return ErrorReply(
        409,
        f"The model {shorten(name)!r} is the server's default: it can be replaced, but not removed.",
        code="default_model_needed",
    )


def no_classifier(param: str | None = None) -> ErrorReply:
    """A text is to be judged, and nothing here judges any."""
    return ErrorReply(
        400,
        "This server runs without a classifier (--unsafe-no-classifier), so it can say nothing about texts.",
        code="no_classifier",
        param=param,
    )


def not_found(noun: str, object_id: str) -> ErrorReply:
    """There is no such stored object; whether another key has one of that id is nobody's business."""
    return ErrorReply(404, f"{noun} with id '{shorten(object_id)}' not found.", code="not_found")


def unknown_url(method: str, path: str) -> ErrorReply:
    """No route has that path."""
    return ErrorReply(
        404,
        f"Unknown request URL: {method} {shorten(path)}. Please check the URL for typos, "
        "and see /openapi.json for what this server offers.",
        code="unknown_url",
    )


def method_not_allowed(method: str, allow: str) -> ErrorReply:
    """The path exists, but not for that method."""
    return ErrorReply(
        405,
        f"Not allowed to {method} here. This URL accepts: {allow}.",
        headers={"allow": allow},
    )


def request_timeout() -> ErrorReply:
    """The body did not arrive in time."""
    return ErrorReply(408, "The request body did not arrive in time.", code="request_timeout")


def request_too_large(max_body_bytes: int) -> ErrorReply:
    """The body is larger than the server takes."""
    return ErrorReply(
        413,
        f"The request body is too large: this server takes at most {max_body_bytes} bytes.",
        code="request_too_large",
    )


def unsupported_media_type(header: str, value: str) -> ErrorReply:
    """The body is in a format or encoding the server does not read."""
    return ErrorReply(
        415,
        f"Unsupported {header}: {shorten(value)!r}. Send plain JSON with the header "
        "'content-type: application/json'.",
        code="unsupported_media_type",
    )


def rate_limited(error: RateLimitError) -> ErrorReply:
    """The key has asked for too much; the message says of what, and when to come again."""
    can_never_fit = math.isinf(error.wait_s)
    wait_s = RETRY_NEVER_S if can_never_fit else error.wait_s
    advice = f"Please try again in {duration(wait_s)}."
    if can_never_fit:
        advice = "Ask for fewer tokens: a shorter prompt, a lower max_tokens, or fewer choices."
    headers = {
        "retry-after": str(max(1, math.ceil(wait_s))),
        "retry-after-ms": str(max(1, math.ceil(wait_s * 1000))),
    }
    return ErrorReply(
        429,
        f"Rate limit reached on {_LIMITED[error.kind]}: limit {error.limit}, requested {error.requested}. {advice}",
        type="tokens" if error.kind == "tokens" else "requests",
        code="rate_limit_exceeded",
        headers=headers | ({"x-should-retry": "false"} if can_never_fit else {}),
    )


def internal_error(request_id: str) -> ErrorReply:
    """A fault of ours: the log has the rest under the same request id."""
    return ErrorReply(
        500,
        "The server had an error while processing your request. Sorry about that! "
        f"The log of the server has it under the request id {request_id}.",
        type="server_error",
    )


def overloaded() -> ErrorReply:
    """As many requests wait as may."""
    return _unavailable(
        "The server is overloaded: too many requests are waiting. Please retry in a moment.",
        "server_is_overloaded",
        RETRY_SOON_S,
    )


def engine_unavailable() -> ErrorReply:
    """The engine has ended; it may be starting again."""
    return _unavailable(
        "The engine that generates replies has stopped. Please retry in a moment.",
        "engine_unavailable",
        RETRY_LATER_S,
    )


def grammar_too_complex() -> ErrorReply:
    """A schema was accepted, and following it became too much work in the middle of the reply."""
    return ErrorReply(
        400,
        "The reply could not be completed: following its JSON schema became too complex. Simplify the schema of the "
        "reply's form or of its tools: fewer alternatives, shorter patterns.",
        code="invalid_value",
    )


def engine_stalled() -> ErrorReply:
    """Work waits and the engine does nothing."""
    return _unavailable("The engine makes no progress.", "engine_stalled", RETRY_LATER_S)


def storage_unavailable() -> ErrorReply:
    """The database cannot be used; the log says why."""
    return _unavailable(
        "The server cannot reach what it stores, or cannot store more. Nothing was changed.",
        "storage_unavailable",
        RETRY_LATER_S,
    )


def shutting_down() -> ErrorReply:
    """The server finishes what runs and takes no new work."""
    return _unavailable("The server is shutting down.", "shutting_down", RETRY_LATER_S)


def deadline_passed(timeout_s: float) -> ErrorReply:
    """The reply was not ready in time."""
    return ErrorReply(
        504,
        f"The reply was not finished within the server's limit of {timeout_s:g} seconds.",
        type="server_error",
        code="timeout",
    )


def duration(seconds: float) -> str:
    """Write a time span as OpenAI's headers do: 120ms, 6s, 1m0s."""
    milliseconds = math.ceil(round(seconds * 1000, 3))
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    text = f"{rest / 1000:g}s"
    return f"{minutes}m{text}" if minutes else text


def shorten(text: str, limit: int = 200) -> str:
    """Cut what a client sent, so that a reply never repeats megabytes of it."""
    return text if len(text) <= limit else text[:limit] + "..."


def _unavailable(message: str, code: str, retry_after_s: int) -> ErrorReply:
    return ErrorReply(
        503,
        message,
        type="service_unavailable_error",
        code=code,
        headers={"retry-after": str(retry_after_s)},
    )
