"""A PostgreSQL server of Debian's packages in a directory of its own: a unix socket, no TCP, gone after the tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psycopg
import pytest

from support.live_server import wait_until

MIN_VERSION = 15
START_LIMIT_S = 30


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A running server, which trusts whoever reaches its socket."""

    directory: Path
    process: subprocess.Popen[bytes]
    numbers: Iterator[int]

    def url(self, database: str = "postgres") -> str:
        """The address of a database."""
        return f"postgresql://postgres@/{database}?host={self.directory}"

    def new_database(self) -> str:
        """Make an empty database and return its address."""
        name = f"test_{next(self.numbers)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self.url(name)

    def answers(self) -> bool:
        """Whether the server takes connections."""
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


def postgres_programs() -> Path | None:
    """Where the programs of a recent enough PostgreSQL are, if there is one."""
    versions = {
        int(path.parts[-3]): path.parent
        for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")
        if path.parts[-3].isdigit()
    }
    newest = max(versions, default=0)
    return versions[newest] if newest >= MIN_VERSION else None


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Start a server whose order of texts is a dictionary's, as on most real ones, and stop it in the end.

    Without PostgreSQL the test is skipped.
    """
    programs = postgres_programs()
    if programs is None:
        pytest.skip(f"needs PostgreSQL {MIN_VERSION} or newer: apt-get install postgresql")
    # A short path, for that of a socket may have 107 bytes; PostgreSQL refuses to run as root.
    directory = Path(tempfile.mkdtemp(prefix="turnwise-pg-"))
    account = "postgres" if os.getuid() == 0 else None
    if account:
        shutil.chown(directory, account, account)
    data, log = directory / "data", directory / "log"
    ordered = ["--encoding=UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US"]
    made = [str(programs / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync", *ordered]
    subprocess.run(made, check=True, capture_output=True, user=account, group=account, cwd="/")
    serve = [str(programs / "postgres"), "-D", str(data), "-k", str(directory)]
    options = ["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=40"]
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [*serve, *options], stdout=sink, stderr=sink, user=account, group=account, cwd="/"
        )
    server = PostgresServer(directory, process, count())
    try:
        wait_until(lambda: server.answers() or process.poll() is not None, START_LIMIT_S)
        assert process.poll() is None, log.read_text(errors="replace")
        yield server
    finally:
        process.send_signal(signal.SIGINT)  # the fast shutdown: it does not wait for those who are connected
        process.wait(10)
        shutil.rmtree(directory, ignore_errors=True)
