"""One database: opened and brought up to date when it is first used, its faults turned into StoreError.

A SQLite file is made when something is stored for the first time; until then every look-up finds nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Engine, func, select
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from turnwise_server.errors import StoreError
from turnwise_server.store.migrate import alone_in, make_file, migrate

OPEN_TIMEOUT_S = 10
"""How long to wait while another thread opens the database: one that does not answer must not line up everybody."""

Result = TypeVar("Result")


class Database:
    """Runs pieces of work, each in a transaction of its own; usable from many threads."""

    def __init__(self, engine: Engine, file: Path | None = None) -> None:
        """Use an engine that has not connected yet; `file` is where SQLite keeps the database."""
        self._engine = engine
        self._writer = engine.execution_options(writes=True)
        self._file = file
        self._is_open = False
        self._opening = threading.Lock()

    def check(self) -> None:
        """Raise StoreError if nothing can be written now."""
        self.add(_begin)

    def add(self, work: Callable[[Session], Result]) -> Result:
        """Run work that stores something new, and make the database first if it is not there."""
        with _faults_as_store_errors():
            self._open()
            return self._run(self._writer, work)

    def change(self, work: Callable[[Session], Result], *, nothing: Result) -> Result:
        """Run work that changes what is stored; return `nothing` while there is no database."""
        return nothing if self._is_absent() else self.add(work)

    def look_up(self, work: Callable[[Session], Result], *, nothing: Result) -> Result:
        """Run work that only reads; return `nothing` while there is no database."""
        if self._is_absent():
            return nothing
        with _faults_as_store_errors():
            self._open()
            return self._run(self._engine, work)

    def close(self) -> None:
        """Close every connection that is not in use."""
        self._engine.dispose()

    def _is_absent(self) -> bool:
        with _faults_as_store_errors():
            return self._file is not None and not self._file.exists()

    def _open(self) -> None:
        # A file that somebody deleted under us would still take writes, and lose them.
        if self._is_open and not self._is_absent():
            return
        if not self._opening.acquire(timeout=OPEN_TIMEOUT_S):
            raise StoreError("the database cannot be used: it has not answered yet")
        try:
            if not self._is_open or self._is_absent():
                self._engine.dispose()
                self._make_or_update()
                self._is_open = True
        finally:
            self._opening.release()

    def _make_or_update(self) -> None:
        if self._file is None:
            migrate(self._writer)
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with alone_in(self._file.parent):
            make_file(self._file)
            migrate(self._writer)

    def _run(self, engine: Engine, work: Callable[[Session], Result]) -> Result:
        with Session(engine, expire_on_commit=False) as session, session.begin():
            return work(session)


def take_turns(session: Session, name: str) -> None:
    """Wait for every other transaction that took turns under this name. SQLite's writes always do."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(name, 0))))


def _begin(session: Session) -> None:
    session.connection()


@contextmanager
def _faults_as_store_errors() -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        raise  # a fault of ours, not of the database
    except (DBAPIError, PoolTimeoutError, OSError) as error:
        raise StoreError(f"the database cannot be used: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Say what is wrong without a word of what was stored: messages of PostgreSQL may quote values."""
    if not isinstance(error, DBAPIError):
        return str(error)
    cause = error.orig
    code = getattr(cause, "sqlstate", None)
    return f"{type(cause).__name__} {code}" if code else f"{type(cause).__name__}: {cause}"
