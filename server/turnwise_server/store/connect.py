"""From a database URL to a `Database`: which databases there are, and how they are set up."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import QueuePool

from turnwise_server.data_directory import data_directory
from turnwise_server.errors import ConfigurationError
from turnwise_server.store.database import Database

CONNECTIONS = 8
"""Most connections to one database."""

BUSY_TIMEOUT_S = 5
"""How long a write to SQLite waits for another one."""

CONNECT_TIMEOUT_S = 5
"""How long to wait for PostgreSQL to answer."""


SILENCE_TIMEOUT_MS = 20_000
"""How long a connection may stay unanswered before it counts as broken."""


def open_database(url: str | None) -> Database:
    """Return the database at a URL, or the one in the user's data directory. Nothing is opened or made yet.

    Raises:
        ConfigurationError: this is not the URL of a database that can be used.
    """
    if url is None:
        return _sqlite_database(data_directory() / "server.db")
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise _bad_url() from error
    match parsed.drivername:
        case "sqlite" if parsed.database and not parsed.database.startswith((":", "file:")):
            return _sqlite_database(Path(parsed.database))
        case "postgresql" | "postgresql+psycopg":
            return Database(_postgresql_engine(parsed.set(drivername="postgresql+psycopg")))
    raise _bad_url()


def memory_database() -> Database:
    """Return a database that ends with the process. Its one connection serves one thread after the other."""
    return Database(_sqlite_engine(URL.create("sqlite"), pool_size=1))


def _sqlite_database(file: Path) -> Database:
    file = file.absolute()
    return Database(_sqlite_engine(URL.create("sqlite", database=str(file)), pool_size=CONNECTIONS), file)


def _sqlite_engine(url: URL, *, pool_size: int) -> Engine:
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=pool_size,
        max_overflow=0,
        hide_parameters=True,
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
    )
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = (
        None  # Python's driver would begin late, and end before a change of the tables
    )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    """Take the right to write at once: two transactions that read first and write later could not both go on."""
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _postgresql_engine(url: URL) -> Engine:
    try:
        return create_engine(
            url,
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={"connect_timeout": CONNECT_TIMEOUT_S, "tcp_user_timeout": SILENCE_TIMEOUT_MS}
            | dict(url.query),
        )
    except ImportError as error:
        raise ConfigurationError("PostgreSQL needs a driver: pip install 'turnwise[postgres]'") from error


def _bad_url() -> ConfigurationError:
    """The URL may hold a password, so it is not repeated."""
    return ConfigurationError(
        "database_url (TURNWISE_DATABASE_URL) is not valid: it must be sqlite:///PATH (with four slashes for an "
        "absolute path) or postgresql://USER:PASSWORD@HOST/NAME"
    )
