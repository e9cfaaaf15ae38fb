"""Sends JSON and errors, as responses or straight to an ASGI server."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import Send

from turnwise_server.api.errors import ErrorReply
from turnwise_server.api.wire import encode_json


def json_response(content: object, *, headers: Mapping[str, str] | None = None) -> Response:
    """Return a 200 with compact JSON."""
    return Response(encode_json(content), media_type="application/json", headers=dict(headers or {}))


def error_response(reply: ErrorReply) -> Response:
    """Return an error as a response."""
    return Response(reply.body(), reply.status, media_type="application/json", headers=dict(reply.headers))


async def send_error(reply: ErrorReply, send: Send) -> None:
    """Send an error from a middleware."""
    response = error_response(reply)
    await send({"type": "http.response.start", "status": reply.status, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body})
