"""The stores as the routes use them: their blocking calls, run in threads of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from turnwise_server.config import Settings
from turnwise_server.errors import StoreError
from turnwise_server.log import get_logger
from turnwise_server.store.base import CompletionStore, FeedbackStore, ResponseStore
from turnwise_server.store.completions import SqlCompletionStore
from turnwise_server.store.connect import CONNECTIONS, memory_database, open_database
from turnwise_server.store.database import Database
from turnwise_server.store.feedback import SqlFeedbackStore
from turnwise_server.store.responses import Retention, SqlResponseStore

MAX_RECENT_RESPONSES = 10_000

Params = ParamSpec("Params")
Result = TypeVar("Result")


class Storage:
    """What is kept for clients: on request in the database, and for a while in memory."""

    def __init__(self, database: Database, *, response_ttl_s: float, response_memory_bytes: int) -> None:
        """Keep what is stored in `database`; nothing is opened or made yet."""
        memory = memory_database()
        retention = Retention(response_ttl_s, MAX_RECENT_RESPONSES, response_memory_bytes)
        self.completions: CompletionStore = SqlCompletionStore(database)
        self.responses: ResponseStore = SqlResponseStore(database)
        """Responses whose clients asked to store them."""
        self.feedback: FeedbackStore = SqlFeedbackStore(database)
        """Votes on what is stored."""
        self.recent_responses: ResponseStore = SqlResponseStore(memory, retention)
        """Responses whose clients said nothing about it: in memory, for a while."""
        self._databases = (database, memory)
        # Not asyncio's own threads: a database that hangs must not hold up the tokenizer.
        self._threads = ThreadPoolExecutor(CONNECTIONS, "store")

    async def run(
        self, call: Callable[Params, Result], /, *args: Params.args, **kwargs: Params.kwargs
    ) -> Result:
        """Call a method of a store in a thread. Once begun it runs to its end, even if nobody waits any more.

        Raises:
            StoreError: the database cannot be used; the log says why.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, partial(call, *args, **kwargs))
        except StoreError as error:
            get_logger().error("storage_failed", reason=str(error))
            raise

    def close(self) -> None:
        """Wait for the calls that run, and close the databases."""
        self._threads.shutdown()
        for database in self._databases:
            database.close()


def open_storage(settings: Settings) -> Storage:
    """Return the stores that the settings ask for.

    Raises:
        ConfigurationError: there cannot be a database of that address.
    """
    url = settings.database_url
    return Storage(
        open_database(url.get_secret_value() if url else None),
        response_ttl_s=settings.response_ttl_s,
        response_memory_bytes=settings.response_memory_mb * 2**20,
    )
