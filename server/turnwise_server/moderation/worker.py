"""Runs work that blocks in one thread, in batches of whatever waits. It knows nothing of what the work is."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Generic, TypeVar

from turnwise_server.moderation.detector import DetectorError

Item = TypeVar("Item")
Result = TypeVar("Result")


class BatchWorker(Generic[Item, Result]):
    """Collects the items of several callers while its thread is busy, and hands them over together.

    `run` gets at most `max_batch` items and returns one result for each, in their order; one call at a time, always in
    the thread `name`. At most `max_queued` items wait. Everything else belongs to the event loop.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Sequence[Result]],
        *,
        name: str,
        max_batch: int = 16,
        max_queued: int = 256,
    ) -> None:
        self._run = run
        self._name = name
        self._max_batch = max_batch
        self._max_queued = max_queued
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._running: asyncio.Future[Sequence[Result]] | None = None
        self._is_closed = False

    async def submit(self, items: Sequence[Item]) -> list[Result]:
        """Return the results of items, in their order. Where the caller is cancelled, items not begun are dropped.

        Raises:
            DetectorError: too much waits, the worker is closed, or `run` raised; then its exception is the cause.
        """
        if self._is_closed:
            raise DetectorError(f"{self._name} is closed")
        self._forget_those_who_left()
        if len(self._waiting) + len(items) > self._max_queued:
            raise DetectorError(f"{self._name} is overloaded: {len(self._waiting)} texts are waiting")
        loop = asyncio.get_running_loop()
        results: list[asyncio.Future[Result]] = [loop.create_future() for _ in items]
        self._waiting.extend(zip(items, results, strict=True))
        self._begin()
        try:
            return await asyncio.gather(*results)
        finally:
            for result in results:
                result.cancel()

    async def close(self) -> None:
        """End the thread after the batch it is at; what waits fails with DetectorError."""
        self._is_closed = True
        self._forget_those_who_left()
        for _, result in self._waiting:
            result.set_exception(DetectorError(f"{self._name} is closed"))
        self._waiting.clear()
        self._thread.shutdown(wait=False)
        if self._running:
            await asyncio.wait([self._running])
        self._thread.shutdown()  # joins a thread that has nothing left to do

    def _forget_those_who_left(self) -> None:
        self._waiting = deque(entry for entry in self._waiting if not entry[1].done())

    def _begin(self) -> None:
        self._forget_those_who_left()
        if self._running or not self._waiting:
            return
        batch = [self._waiting.popleft() for _ in range(min(self._max_batch, len(self._waiting)))]
        items = [item for item, _ in batch]
        self._running = asyncio.get_running_loop().run_in_executor(self._thread, self._run, items)
        self._running.add_done_callback(partial(self._finish, [result for _, result in batch]))

    def _finish(
        self, results: list[asyncio.Future[Result]], running: asyncio.Future[Sequence[Result]]
    ) -> None:
        self._running = None
        self._begin()
        error: BaseException | None = running.exception()
        values = [] if error else running.result()
        if not error and len(values) != len(results):
            error = ValueError(f"{len(values)} results for {len(results)} items")
        for place, result in enumerate(results):
            if result.done():
                continue
            if error:
                failure = DetectorError(f"{self._name} failed: {type(error).__name__}")
                failure.__cause__ = error
                result.set_exception(failure)
            else:
                result.set_result(values[place])
