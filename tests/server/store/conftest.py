"""Both databases: every test that takes `database_url` or `database` runs on SQLite and on PostgreSQL."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.postgres_server import PostgresServer, postgres_server
from turnwise_server.store.connect import open_database
from turnwise_server.store.database import Database


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database that is empty or not there yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store/test.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
def opened() -> Iterator[Callable[[str | None], Database]]:
    """Opens databases, and closes them after the test."""
    with ExitStack() as stack:

        def open_and_close_later(url: str | None) -> Database:
            database = open_database(url)
            stack.callback(database.close)
            return database

        yield open_and_close_later


@pytest.fixture
def database(database_url: str, opened: Callable[[str | None], Database]) -> Database:
    return opened(database_url)
