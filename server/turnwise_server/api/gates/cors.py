"""Lets the web pages of listed origins use the server from a browser (CORS, as the Fetch standard has it).

Keys travel in headers that a page sets itself, so cookies are never asked for and `allow-credentials` never sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

EXPOSED_HEADERS = (
    "openai-processing-ms",
    "retry-after",
    "traceparent",
    "x-context-truncated",
    "x-ignored-params",
    "x-moderation",
    "x-ratelimit-limit-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
    "x-refusal",
    "x-request-id",
    "x-should-retry",
)
"""What a page may read of a reply's headers. Wildcards would not do: browsers refuse parts of names."""

ALLOWED_METHODS = ("DELETE", "GET", "POST")
MAX_AGE_S = 7200
"""How long a browser may remember a preflight reply; Chromium remembers no longer."""

MAX_HEADERS = 64
_HEADER_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

Headers = list[tuple[bytes, bytes]]


class Cors:
    """ASGI middleware around everything else, so that pages can read refusals and failures too.

    Preflight requests of listed origins are answered here, before keys and without a line in the log. All that
    comes from elsewhere passes as if there were no CORS: the browser keeps the reply from the page. Starlette's
    middleware would answer foreign preflights itself, in plain text, give them the header lists, and allow either
    a fixed list of request headers or whatever was sent, well-formed or not.
    """

    def __init__(self, app: ASGIApp, *, allowed_origins: Iterable[str]) -> None:
        self._app = app
        self._allowed = frozenset(origin.encode() for origin in allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = dict(scope["headers"])
        origin = asked.get(b"origin", b"")
        headers: Headers = [(b"vary", b"Origin")]
        if origin in self._allowed:
            headers += [
                (b"access-control-allow-origin", origin),
                (b"access-control-expose-headers", ", ".join(EXPOSED_HEADERS).encode()),
            ]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *headers]
            await send(message)

        is_preflight = scope["method"] == "OPTIONS" and b"access-control-request-method" in asked
        if is_preflight and origin in self._allowed:
            await _preflight_reply(asked)(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)


def _preflight_reply(asked: dict[bytes, bytes]) -> Response:
    """Allow the methods there are, and whatever well-formed headers the page asks to send.

    An origin on the list may hold a key and talk to every route; no header gives it more than that. SDKs send
    dozens (`x-stainless-*`, `anthropic-*`), and new ones with each version.
    """
    names = asked.get(b"access-control-request-headers", b"").decode("latin-1").lower().split(",")
    headers = {
        "access-control-allow-methods": ", ".join(ALLOWED_METHODS),
        "access-control-allow-headers": ", ".join(
            name for name in map(str.strip, names[:MAX_HEADERS]) if _HEADER_NAME.fullmatch(name)
        ),
        "access-control-max-age": str(MAX_AGE_S),
        "vary": "Access-Control-Request-Headers, Access-Control-Request-Private-Network",
    }
    if asked.get(b"access-control-request-private-network") == b"true":
        headers["access-control-allow-private-network"] = "true"
    return Response(status_code=204, headers=headers)
