"""Errors as Anthropic's clients read them. The rest of the server knows OpenAI's form only: it is translated here."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import BaseModel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from turnwise_server.api.errors import ErrorReply
from turnwise_server.api.wire import encode_json

MESSAGES_PATHS = frozenset({"/v1/messages", "/v1/messages/count_tokens"})

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class AnthropicErrorDetails(BaseModel):
    """Which error it is."""

    error_code: str | None
    """The code that OpenAI's clients read; docs/http-api.md lists them."""
    param: str | None


class AnthropicError(BaseModel):
    """What went wrong."""

    type: str
    message: str
    details: AnthropicErrorDetails


class AnthropicErrorBody(BaseModel):
    """The body of every error of /v1/messages."""

    type: Literal["error"] = "error"
    error: AnthropicError
    request_id: str


def anthropic_error(
    status: int, message: str, *, code: str | None, param: str | None, request_id: str
) -> dict[str, object]:
    """Return Anthropic's error object."""
    return AnthropicErrorBody(
        error=AnthropicError(
            type=_TYPES.get(status, "invalid_request_error"),
            message=message,
            details=AnthropicErrorDetails(error_code=code, param=param),
        ),
        request_id=request_id,
    ).model_dump()


def error_frame(error: ErrorReply, request_id: str) -> bytes:
    """Return the event that ends a stream which cannot be completed."""
    body = anthropic_error(
        error.status, error.message, code=error.code, param=error.param, request_id=request_id
    )
    return b"event: error\ndata: " + encode_json(body) + b"\n\n"


class AnthropicErrors:
    """ASGI middleware around everything: on the paths of Anthropic's API it translates errors, whoever made them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] in MESSAGES_PATHS:
            send = _Translation(send)
        await self._app(scope, receive, send)


class _Translation:
    """Passes replies on and holds errors back until they are complete."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            message["headers"] = [*headers, (b"request-id", _header(message, b"x-request-id"))]
            if message["status"] < 400:
                await self._send(message)
            else:
                self._start = message
            return
        if self._start is None:
            await self._send(message)
            return
        self._body += message.get("body", b"")
        if not message.get("more_body", False):
            body = _translated(self._start, self._body)
            headers = [pair for pair in self._start["headers"] if pair[0] != b"content-length"]
            length = (b"content-length", str(len(body)).encode())
            await self._send({**self._start, "headers": [*headers, length]})
            await self._send({"type": "http.response.body", "body": body})


def _translated(start: Message, body: bytes) -> bytes:
    if not body:
        return body
    error = json.loads(body)["error"]
    request_id = _header(start, b"x-request-id").decode("latin-1")
    return encode_json(
        anthropic_error(
            start["status"],
            error["message"],
            code=error["code"],
            param=error["param"],
            request_id=request_id,
        )
    )


def _header(message: Message, name: bytes) -> bytes:
    return next((bytes(value) for key, value in message["headers"] if key == name), b"")
