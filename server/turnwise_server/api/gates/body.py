"""Reads request bodies within bounds: size, time, depth and numbers, before anything else looks at them."""

from __future__ import annotations

import asyncio
import re

from pydantic_core import from_json
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from turnwise_server.api.errors import (
    ApiError,
    invalid_json,
    request_timeout,
    request_too_large,
    unsupported_media_type,
)
from turnwise_server.api.telemetry.request_log import refuse

BIG_BODY_BYTES = 32 * 1024
"""A body beyond this is parsed in a thread, so that it does not stall running streams."""

_READABLE_TYPE = re.compile(
    r"application/(json|[\w.+-]+\+json|x-www-form-urlencoded|octet-stream)|text/(plain|json)", re.IGNORECASE
)


class BodyLimit:
    """ASGI middleware that refuses large bodies: at once by content-length, else where the limit is crossed."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if declared.isdigit() and int(declared[:16]) > self._max_body_bytes:
            await refuse(request_too_large(self._max_body_bytes), scope, send)
            return
        received = 0

        async def bounded_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_body_bytes:
                raise ApiError(request_too_large(self._max_body_bytes))
            return message

        await self._app(scope, bounded_receive, send)


async def read_json_object(request: Request, *, timeout_s: float) -> dict[str, object]:
    """Return the JSON object in the body of a request.

    Raises:
        ApiError: too late (408), a format that is not JSON (415), or not a JSON object (400).
        ClientDisconnect: the client went away before the body was complete.
    """
    _check_headers(request)
    try:
        async with asyncio.timeout(timeout_s):
            body = await request.body()
    except TimeoutError as error:
        raise ApiError(request_timeout()) from error
    if len(body) > BIG_BODY_BYTES:
        return await asyncio.to_thread(parse_json_object, body)
    return parse_json_object(body)


def parse_json_object(body: bytes) -> dict[str, object]:
    """Parse strictly: UTF-8, no NaN, no lone surrogates, no endless numbers, at most 200 levels deep.

    Raises:
        ApiError: the body is not such a JSON object.
    """
    if not body.strip():
        raise ApiError(invalid_json("the body is empty"))
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(invalid_json(str(error))) from error
    if not isinstance(value, dict):
        raise ApiError(invalid_json("the JSON is not an object"))
    return value


def _check_headers(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise ApiError(unsupported_media_type("content-encoding", encoding))
    content_type = request.headers.get("content-type", "application/json")
    if not _READABLE_TYPE.fullmatch(content_type.partition(";")[0].strip()):
        raise ApiError(unsupported_media_type("content-type", content_type))
