"""Rate limits on the wire: which routes they hold for, and what headers say of them."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from turnwise_server.api.errors import duration, rate_limited
from turnwise_server.api.telemetry.request_log import record_of, refuse
from turnwise_server.errors import RateLimitError
from turnwise_server.limits.limiter import Allowance, RateLimiter, Standing

LIMITED_PATHS = frozenset(
    {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/moderations"}
)
"""A POST to one of these generates or judges, and counts. Everything else a key may ask for costs next to nothing."""


class RateLimitGate:
    """ASGI middleware that lets a key in as often as it may come, before anything of the request is read."""

    def __init__(self, app: ASGIApp, *, limiter: RateLimiter) -> None:
        self._app = app
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in LIMITED_PATHS:
            await self._app(scope, receive, send)
            return
        record = record_of(scope)
        allowance = record.allowance = self._limiter.allowance(record.key)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_headers(allowance)]
            await send(message)

        try:
            await allowance.enter()
            await self._app(scope, receive, send_with_headers)
        except RateLimitError as error:
            await refuse(rate_limited(error), scope, send_with_headers)
        finally:
            await allowance.leave()


def _headers(allowance: Allowance) -> list[tuple[bytes, bytes]]:
    standings = {"requests": allowance.requests(), "tokens": allowance.tokens()}
    values = {
        f"x-ratelimit-{part}-{kind}": value
        for kind, standing in standings.items()
        if standing
        for part, value in _parts(standing).items()
    }
    return [(name.encode(), value.encode()) for name, value in values.items()]


def _parts(standing: Standing) -> dict[str, str]:
    return {
        "limit": str(standing.limit),
        "remaining": str(standing.remaining),
        "reset": duration(standing.reset_s),
    }
