"""Processes that share a database, and one that is killed while it writes."""

import subprocess
import sys

from turnwise_server.store.base import CompletionQuery
from turnwise_server.store.completions import SqlCompletionStore
from turnwise_server.store.database import Database
from turnwise_server.store.responses import SqlResponseStore

WRITER = """
import sys
from turnwise_server.store.base import StoredCompletion, StoredResponse
from turnwise_server.store.completions import SqlCompletionStore
from turnwise_server.store.connect import open_database
from turnwise_server.store.responses import SqlResponseStore

url, name, count = sys.argv[1:]
database = open_database(url)
completions, responses = SqlCompletionStore(database), SqlResponseStore(database)
print("ready", flush=True)
sys.stdin.readline()
previous_id = None
for number in range(int(count)):
    id_ = f"{name}-{number:05}"
    completions.save("ada", StoredCompletion(id_, "m", '{"x":"' + "y" * 2000 + '"}', {"k": "v"}), ['{"m":1}'])
    responses.save("ada", StoredResponse(id_, "{}", "[]"), messages=['{"m":1}'], previous_id=previous_id)
    previous_id = id_
    print(id_, flush=True)
"""


class Writer:
    """A process that waits, then writes and prints the id of all that was acknowledged."""

    def __init__(self, url: str, name: str, count: int) -> None:
        command = [sys.executable, "-c", WRITER, url, name, str(count)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.line() == "ready"

    def begin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def rest(self) -> list[str]:
        """Every line up to the end of the process."""
        output, _ = self.process.communicate(timeout=30)
        return [line.strip() for line in output.splitlines(keepends=True) if line.endswith("\n")]


def stored(database: Database) -> list[str]:
    found, has_more = SqlCompletionStore(database).page("ada", CompletionQuery(limit=10_000))
    assert not has_more
    assert all(item.metadata == {"k": "v"} for item in found)
    return [item.id for item in found]


def test_processes_that_start_on_one_empty_database_share_it(database_url: str, database: Database) -> None:
    writers = [Writer(database_url, name, 5) for name in "abc"]
    for writer in writers:
        writer.begin()
    assert [len(writer.rest()) for writer in writers] == [5, 5, 5]
    assert stored(database) == [f"{name}-{number:05}" for name in "abc" for number in range(5)]


def test_a_process_killed_while_it_writes_loses_nothing_that_was_acknowledged(
    database_url: str, database: Database
) -> None:
    writer = Writer(database_url, "a", 100_000)
    writer.begin()
    acknowledged = [writer.line() for _ in range(25)]
    writer.process.kill()
    acknowledged += writer.rest()
    assert stored(database)[: len(acknowledged)] == acknowledged
    responses = SqlResponseStore(database)
    assert all(responses.get("ada", id_) for id_ in acknowledged)
    assert len(responses.conversation("ada", acknowledged[-1]) or ()) == len(acknowledged)
