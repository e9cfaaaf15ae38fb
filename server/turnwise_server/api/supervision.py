"""Runs the work of one reply and stops it when the client leaves, time is up, or the server ends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from enum import Enum
from typing import Any, TypeVar

from starlette.types import Receive

Result = TypeVar("Result")


class Interruption(Enum):
    """Why a reply was stopped before its end."""

    CLIENT_GONE = "client_gone"
    CLIENT_TOO_SLOW = "client_too_slow"
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
    receive: Receive,
    aborted: asyncio.Event,
    timeout_s: float,
    reader_gave_up: Coroutine[Any, Any, None] | None = None,
) -> Result:
    """Return the result of `work`, which is cancelled when one of the other things happens first.

    One set of tasks a reply, none a token: `reader_gave_up` (if given) runs beside and returns when the client
    takes nothing any more.

    Raises:
        Interrupted: with the reason.
    """
    main = asyncio.create_task(work)
    watchers: dict[asyncio.Task[Any], Interruption] = {
        asyncio.create_task(_disconnected(receive)): Interruption.CLIENT_GONE,
        asyncio.create_task(aborted.wait()): Interruption.SHUTDOWN,
    }
    if reader_gave_up is not None:
        watchers[asyncio.create_task(reader_gave_up)] = Interruption.CLIENT_TOO_SLOW
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


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
