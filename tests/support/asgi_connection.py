"""One HTTP request driven by hand, below any client library: watch it stream, stall it, hang up."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.types import ASGIApp, Message


class AsgiConnection:
    """What a server hands to an application for one POST, under the test's control."""

    def __init__(self, app: ASGIApp, body: dict[str, Any], *, path: str = "/v1/chat/completions") -> None:
        self.sent: list[Message] = []
        self.accepts = asyncio.Event()
        """While it is clear the client takes nothing: sends wait."""
        self.accepts.set()
        self._requests: asyncio.Queue[Message] = asyncio.Queue()
        self._requests.put_nowait({"type": "http.request", "body": json.dumps(body).encode()})
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "scheme": "http",
            "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000),
        }
        self.task = asyncio.create_task(self._run(app, scope))

    async def _run(self, app: ASGIApp, scope: dict[str, Any]) -> None:
        await app(scope, self._requests.get, self._send)

    async def _send(self, message: Message) -> None:
        await self.accepts.wait()
        self.sent.append(message)

    def hang_up(self) -> None:
        """Close the connection, as a client does."""
        self._requests.put_nowait({"type": "http.disconnect"})

    @property
    def text(self) -> str:
        """The body so far."""
        return b"".join(message.get("body", b"") for message in self.sent).decode()

    @property
    def status(self) -> int:
        """The status, 0 before there is one."""
        return int(self.sent[0]["status"]) if self.sent else 0

    @property
    def is_complete(self) -> bool:
        """Whether the body was ended properly."""
        return bool(self.sent) and self.sent[-1].get("more_body", True) is False


async def until(condition: Any, limit_s: float = 2.0) -> None:
    """Wait until `condition()` holds."""
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110 - conditions without an event
            await asyncio.sleep(0.005)
