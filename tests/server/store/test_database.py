"""How a database comes to be, is brought up to date, and fails."""

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import event, inspect, text

from support.postgres_server import PostgresServer
from turnwise_server.errors import ConfigurationError, StoreError
from turnwise_server.store.base import CompletionQuery, StoredCompletion
from turnwise_server.store.completions import SqlCompletionStore
from turnwise_server.store.connect import memory_database, open_database
from turnwise_server.store.database import Database
from turnwise_server.store.tables import Base

SECRET = "hunter2-secret"
Open = Callable[[str | None], Database]


def save(database: Database, id_: str = "c1", body: str = "{}") -> None:
    SqlCompletionStore(database).save("ada", StoredCompletion(id_, "m", body), ['{"role":"user"}'])


def ids(database: Database) -> list[str]:
    found, _ = SqlCompletionStore(database).page("ada", CompletionQuery(limit=100))
    return [item.id for item in found]


def sqlite_file(database_url: str) -> Path:
    return Path(database_url.removeprefix("sqlite:///"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "test.db"


@pytest.fixture
def sqlite(file: Path, opened: Open) -> Database:
    return opened(f"sqlite:///{file}")


def test_the_migrations_make_exactly_the_tables_of_the_code(database: Database) -> None:
    database.check()
    with database._engine.connect() as connection:
        assert set(Base.metadata.tables) < set(inspect(connection).get_table_names())
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_a_database_is_opened_again_with_all_that_is_in_it(database_url: str, opened: Open) -> None:
    for number in range(3):
        database = opened(database_url)
        save(database, f"c{number}")
        database.close()
    assert ids(opened(database_url)) == ["c0", "c1", "c2"]


def test_a_database_of_a_newer_version_is_refused_and_left_alone(database_url: str, opened: Open) -> None:
    database = opened(database_url)
    save(database)
    with database._engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match=r"newer version of Turnwise.*'9999'"):
        save(opened(database_url), "c2")
    assert ids(database) == ["c1"]


def test_threads_that_begin_at_once_find_one_database(database_url: str, opened: Open) -> None:
    databases = [opened(database_url) for _ in range(4)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: save(databases[number % 4], f"c{number}"), range(16)))
    assert len(ids(databases[0])) == 16


def test_nothing_is_on_disk_until_something_is_stored(sqlite: Database, file: Path) -> None:
    assert ids(sqlite) == []
    assert not file.parent.exists()
    save(sqlite)
    assert file.exists()


def test_only_the_user_can_read_the_files(sqlite: Database, file: Path) -> None:
    save(sqlite)
    names = {path.name for path in file.parent.iterdir()}
    assert names == {"test.db", "test.db-wal", "test.db-shm"}
    assert {path.stat().st_mode & 0o777 for path in file.parent.iterdir()} == {0o600}


def test_sqlite_writes_ahead_waits_and_holds_references(sqlite: Database) -> None:
    save(sqlite)
    with sqlite._engine.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 1, "foreign_keys": 1, "busy_timeout": 5000}


def test_a_file_that_was_deleted_under_the_server_is_made_anew(
    sqlite: Database, file: Path, opened: Open
) -> None:
    save(sqlite, "c1")
    for path in file.parent.iterdir():
        path.unlink()
    assert ids(sqlite) == []
    save(sqlite, "c2")
    assert ids(opened(f"sqlite:///{file}")) == ["c2"]


def set_pragma(database: Database, pragma: str) -> None:
    """Change how the database behaves, from the next use of a connection on."""
    event.listen(database._engine, "checkout", lambda connection, *_: connection.execute(f"PRAGMA {pragma}"))


def fill_disk(database: Database) -> None:
    set_pragma(database, "max_page_count = 1")


def forbid_writes(database: Database) -> None:
    set_pragma(database, "query_only = 1")


def hold_lock(database: Database) -> None:
    set_pragma(database, "busy_timeout = 20")
    other = sqlite3.connect(database._engine.url.database or "", check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    event.listen(database._engine, "engine_disposed", lambda _: other.close())


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (fill_disk, "OperationalError: database or disk is full"),
        (forbid_writes, "OperationalError: attempt to write a readonly database"),
        (hold_lock, "OperationalError: database is locked"),
    ],
)
def test_a_write_that_cannot_be_done_says_why_and_loses_nothing(
    sqlite: Database, file: Path, break_it: Callable[[Database], None], reason: str, opened: Open
) -> None:
    save(sqlite, "c1")
    break_it(sqlite)
    with pytest.raises(StoreError, match=reason):
        save(sqlite, "c2", body="x" * 100_000)
    assert ids(sqlite) == ["c1"]
    sqlite.close()
    assert ids(opened(f"sqlite:///{file}")) == ["c1"]


def test_a_file_that_is_no_database_says_so_and_stays_as_it_is(sqlite: Database, file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"not a database" * 1000)
    for attempt in (save, ids):
        with pytest.raises(StoreError, match="file is not a database"):
            attempt(sqlite)
    assert file.read_bytes() == b"not a database" * 1000


def test_a_file_that_was_damaged_says_so(sqlite: Database, file: Path, opened: Open) -> None:
    for number in range(20):
        save(sqlite, f"c{number}", body="x" * 5000)
    sqlite.close()
    with file.open("r+b") as stream:
        stream.seek(4096)
        stream.write(b"\xff" * 60_000)
    with pytest.raises(StoreError, match="malformed"):
        ids(opened(f"sqlite:///{file}"))


def test_a_place_where_no_file_can_be_says_so(tmp_path: Path, opened: Open) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="file"):
        save(opened(f"sqlite:///{tmp_path}/file/test.db"))


def test_a_store_works_again_once_the_fault_is_gone(sqlite: Database, file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError):
        save(sqlite)
    file.unlink()
    save(sqlite)
    assert ids(sqlite) == ["c1"]


def test_a_server_that_is_down_says_so_without_the_password(tmp_path: Path, opened: Open) -> None:
    database = opened(f"postgresql://ada:{SECRET}@/chats?host={tmp_path}")
    for attempt in (save, ids):
        with pytest.raises(StoreError, match="No such file or directory") as raised:
            attempt(database)
        assert SECRET not in str(raised.value)


def test_a_server_that_ended_our_connections_is_connected_to_again(
    postgres: PostgresServer, opened: Open
) -> None:
    database = opened(postgres.new_database())
    save(database, "c1")
    with opened(postgres.url())._engine.begin() as connection:
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        )
    save(database, "c2")
    assert ids(database) == ["c1", "c2"]


def test_an_error_of_the_server_never_quotes_what_was_stored(postgres: PostgresServer, opened: Open) -> None:
    database = opened(postgres.new_database())
    database.check()
    with database._engine.begin() as connection:
        connection.execute(text("ALTER TABLE chat_completions ADD CHECK (body::json IS NOT NULL)"))
    with pytest.raises(StoreError) as raised:
        save(database, body=f'{{"text": "{SECRET}"')
    assert SECRET not in str(raised.value)
    assert "InvalidTextRepresentation 22P02" in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "chats.db",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///file:chats.db?uri=true",
        f"mysql://ada:{SECRET}@host/chats",
        f"postgresql+asyncpg://ada:{SECRET}@host/chats",
        f"postgresql://ada:{SECRET}@host:port/chats",
    ],
)
def test_a_wrong_address_is_told_at_once_without_the_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="TURNWISE_DATABASE_URL") as raised:
        open_database(url)
    assert SECRET not in str(raised.value)


def test_both_spellings_of_postgresql_are_taken(postgres: PostgresServer, opened: Open) -> None:
    url = postgres.new_database()
    save(opened(url))
    assert ids(opened(url.replace("postgresql://", "postgresql+psycopg://"))) == ["c1"]


def test_without_an_address_the_file_is_in_the_users_data_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Open
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    save(opened(None))
    assert (tmp_path / "turnwise" / "server.db").exists()


def test_what_is_in_memory_is_shared_by_threads() -> None:
    database = memory_database()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: save(database, f"c{number}"), range(40)))
    assert len(ids(database)) == 40
    database.close()
