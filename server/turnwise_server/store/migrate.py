"""Brings a database to the tables of this version, whoever else starts at the same time."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import Connection, Engine, func, select

from turnwise_server.errors import StoreError

MIGRATIONS = "turnwise_server.store:migrations"

ADVISORY_LOCK = 0x7475726E
"""The lock of PostgreSQL that a process holds while it migrates; any number that nobody else uses."""

_ALEMBIC = threading.Lock()
"""Alembic works on global state: one migration at a time in a process."""


def migrate(engine: Engine) -> None:
    """Run every migration that the database has not seen, all in one transaction.

    Raises:
        StoreError: a newer version of this program has used the database.
    """
    with _ALEMBIC, engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(ADVISORY_LOCK)))
        _upgrade(connection)


def _upgrade(connection: Connection) -> None:
    # Half a second of imports that a server which stores nothing does without.
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", MIGRATIONS)
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in known:
        raise StoreError(
            f"the database was made by a newer version of Turnwise (its revision is {current!r}): "
            "install that version, or name another database with TURNWISE_DATABASE_URL"
        )
    command.upgrade(config, "head")


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Wait until no other process makes or migrates a database in this directory; the lock ends with its holder."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def make_file(file: Path) -> None:
    """Make an empty file that only its owner can read, if there is none; SQLite's other files get the same mode."""
    with suppress(FileExistsError):
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
