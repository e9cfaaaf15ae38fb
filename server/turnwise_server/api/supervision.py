"""Runs the work of one reply and stops it when the client leaves, time is up, or the server ends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from enum import Enum
from typing import Any, TypeVar

from starlette.types import Receive

Result = TypeVar("Result")


class Interruption(Enum):
    """Why a reply was stopped before its end."""

    CLIENT_GONE = "client_gone"
    CLIENT_TOO_SLOW = "client_too_slow"
    CANCELLED = "cancelled"
    """A client asked for it to be stopped."""
    DEADLINE = "deadline"
    SHUTDOWN = "shutdown"


class Interrupted(Exception):  # noqa: N818 - not an error of anybody's making
    """The work was stopped."""

    def __init__(self, reason: Interruption) -> None:
        super().__init__(reason.value)
        self.reason = reason


async def supervise(
    work: Coroutine[Any, Any, Result],
    *,
    until: Mapping[Interruption, Coroutine[Any, Any, object]],
    timeout_s: float,
) -> Result:
    """Return the result of `work`, which is cancelled when one of `until` returns first, or the time is over.

    One set of tasks a reply, none a token.

    Raises:
        Interrupted: with the reason.
    """
    main = asyncio.create_task(work)
    watchers = {asyncio.create_task(watch): reason for reason, watch in until.items()}
    try:
        done, _ = await asyncio.wait(
            {main, *watchers}, timeout=max(timeout_s, 0), return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        is_finished = main.done()
        for task in (main, *watchers):
            task.cancel()
        await asyncio.gather(main, *watchers, return_exceptions=True)
    if is_finished:
        return main.result()
    raise Interrupted(next((watchers[task] for task in done if task in watchers), Interruption.DEADLINE))


async def disconnected(receive: Receive) -> None:
    """Return when the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
