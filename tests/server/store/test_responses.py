"""Responses and the conversations they continue, on both databases."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import event, select

from turnwise_server.store import responses
from turnwise_server.store.base import StoredResponse
from turnwise_server.store.connect import memory_database
from turnwise_server.store.database import Database
from turnwise_server.store.responses import Retention, SqlResponseStore
from turnwise_server.store.tables import ResponseRow


@pytest.fixture
def store(database: Database) -> SqlResponseStore:
    return SqlResponseStore(database)


def turn(text: str) -> list[str]:
    return [f'{{"user":"{text}"}}', f'{{"assistant":"{text}"}}']


def save(store: SqlResponseStore, id_: str, previous_id: str | None = None, owner: str = "ada") -> None:
    store.save(owner, StoredResponse(id_, "{}", "[]"), messages=turn(id_), previous_id=previous_id)


def chain(store: SqlResponseStore, *ids: str) -> list[str]:
    """Store a conversation and return its messages."""
    for previous_id, id_ in zip((None, *ids), ids, strict=False):
        save(store, id_, previous_id)
    return [message for id_ in ids for message in turn(id_)]


def test_what_was_stored_comes_back(store: SqlResponseStore) -> None:
    saved = StoredResponse("r1", '{"id":"r1"}', '[{"id":"msg_1"}]')
    store.save("ada", saved, messages=turn("hello"))
    assert store.get("ada", "r1") == saved
    assert store.conversation("ada", "r1") == turn("hello")


def test_what_was_never_stored_is_not_there(store: SqlResponseStore) -> None:
    for _ in range(2):
        assert store.get("ada", "r1") is None
        assert store.conversation("ada", "r1") is None
        assert store.update("ada", "r1", body="{}") is False
        assert store.delete("ada", "r1") is False
        save(store, "r2")
        store.delete("ada", "r2")


def test_a_conversation_holds_every_turn_up_to_its_response(store: SqlResponseStore) -> None:
    messages = chain(store, "r1", "r2", "r3")
    assert store.conversation("ada", "r3") == messages
    assert store.conversation("ada", "r2") == messages[:4]


def test_a_conversation_can_branch(store: SqlResponseStore) -> None:
    chain(store, "r1", "r2")
    save(store, "other", "r1")
    assert store.conversation("ada", "other") == turn("r1") + turn("other")
    assert store.conversation("ada", "r2") == turn("r1") + turn("r2")


@pytest.mark.parametrize("deleted", [("r1",), ("r2",), ("r1", "r2"), ("r2", "r1")])
def test_deleting_a_response_leaves_no_hole_in_those_that_continue_it(
    store: SqlResponseStore, deleted: tuple[str, ...]
) -> None:
    messages = chain(store, "r1", "r2", "r3", "r4")
    save(store, "branch", "r2")
    for id_ in deleted:
        assert store.delete("ada", id_)
        assert store.get("ada", id_) is None
        assert store.conversation("ada", id_) is None
    assert store.conversation("ada", "r4") == messages
    assert store.conversation("ada", "branch") == messages[:4] + turn("branch")


def test_deleting_the_last_response_leaves_nothing_of_it(store: SqlResponseStore) -> None:
    messages = chain(store, "r1", "r2")
    assert store.delete("ada", "r2")
    assert store.conversation("ada", "r1") == messages[:2]
    assert not store.delete("ada", "r2")


@pytest.mark.parametrize("previous_id", ["elsewhere", "r1"])
def test_the_history_is_written_only_if_the_previous_response_is_not_here(
    store: SqlResponseStore, previous_id: str
) -> None:
    history = chain(store, "r1")
    store.save(
        "ada",
        StoredResponse("r2", "{}", "[]"),
        messages=turn("r2"),
        previous_id=previous_id,
        history=history,
    )
    assert store.conversation("ada", "r2") == history + turn("r2")


def test_nobody_continues_the_response_of_another_owner(store: SqlResponseStore) -> None:
    chain(store, "r1")
    save(store, "r2", "r1", owner="bob")
    assert store.conversation("bob", "r2") == turn("r2")


def test_an_update_replaces_the_body_and_adds_messages(store: SqlResponseStore) -> None:
    chain(store, "r1", "r2")
    store.delete("ada", "r1")
    assert store.update("ada", "r2", body='{"status":"completed"}', new_messages=['{"more":1}'])
    assert store.get("ada", "r2") == StoredResponse("r2", '{"status":"completed"}', "[]")
    assert store.conversation("ada", "r2") == [*turn("r1"), *turn("r2"), '{"more":1}']


def test_an_update_does_not_bring_back_what_was_deleted(store: SqlResponseStore) -> None:
    chain(store, "r1")
    store.delete("ada", "r1")
    assert not store.update("ada", "r1", body="{}")
    assert store.get("ada", "r1") is None


def test_a_conversation_of_a_thousand_turns_is_read_by_one_query(
    store: SqlResponseStore, database: Database
) -> None:
    messages = chain(store, *(f"r{number}" for number in range(1000)))
    statements: list[str] = []
    event.listen(
        database._engine,
        "before_cursor_execute",
        lambda *arguments: statements.append(arguments[2]),
    )
    assert store.conversation("ada", "r999") == messages
    assert len([text for text in statements if not text.startswith("BEGIN")]) == 1


def test_a_conversation_survives_concurrent_deletions_of_all_it_continues(store: SqlResponseStore) -> None:
    messages = chain(store, *(f"r{number}" for number in range(24)))
    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(lambda number: store.delete("ada", f"r{number}"), range(23)))
    assert store.conversation("ada", "r23") == messages


class Clock:
    """The time, as the store sees it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(responses, "time", clock)
    return clock


@pytest.fixture
def memory() -> Iterator[Database]:
    database = memory_database()
    yield database
    database.close()


def sizes(database: Database) -> list[int]:
    """The size of every row, as the store counts it."""
    nothing: list[int] = []
    return database.look_up(lambda session: list(session.scalars(select(ResponseRow.size))), nothing=nothing)


def test_what_is_kept_for_a_while_is_gone_after_it(memory: Database, clock: Clock) -> None:
    store = SqlResponseStore(memory, Retention(ttl_s=60, max_responses=100, max_bytes=10**6))
    save(store, "r1")
    clock.now += 59
    assert store.get("ada", "r1") is not None
    clock.now += 1
    assert store.get("ada", "r1") is None
    assert store.conversation("ada", "r1") is None
    assert not store.update("ada", "r1", body="{}")
    assert not store.delete("ada", "r1")
    save(store, "r2")
    assert len(sizes(memory)) == 1


def test_a_conversation_outlives_its_first_turns(memory: Database, clock: Clock) -> None:
    store = SqlResponseStore(memory, Retention(ttl_s=60, max_responses=100, max_bytes=10**6))
    save(store, "r1")
    clock.now += 40
    save(store, "r2", "r1")
    clock.now += 40
    save(store, "r3", "r2")
    assert store.get("ada", "r1") is None
    assert len(sizes(memory)) == 2
    assert store.conversation("ada", "r3") == turn("r1") + turn("r2") + turn("r3")


def test_a_whole_conversation_that_has_expired_is_cleared_away_a_part_at_a_time(
    memory: Database, clock: Clock
) -> None:
    store = SqlResponseStore(memory, Retention(ttl_s=60, max_responses=1000, max_bytes=10**6))
    chain(store, *(f"r{number}" for number in range(250)))
    clock.now += 61
    counts = []
    for number in range(3):
        save(store, f"new{number}")
        counts.append(len(sizes(memory)))
    assert counts == [151, 52, 3]


def test_the_oldest_go_when_there_are_too_many(memory: Database) -> None:
    store = SqlResponseStore(memory, Retention(ttl_s=60, max_responses=3, max_bytes=10**6))
    for number in range(5):
        save(store, f"r{number}")
    assert [store.get("ada", f"r{number}") is not None for number in range(5)] == [
        False,
        False,
        True,
        True,
        True,
    ]


def test_the_oldest_go_when_they_are_too_large(memory: Database) -> None:
    store = SqlResponseStore(memory, Retention(ttl_s=60, max_responses=100, max_bytes=2500))
    for number in range(4):
        store.save("ada", StoredResponse(f"r{number}", "x" * 1000, "[]"), messages=turn("a"))
    assert [store.get("ada", f"r{number}") is not None for number in range(4)] == [False, False, True, True]
    store.save("ada", StoredResponse("huge", "x" * 3000, "[]"), messages=turn("a"))
    assert len(sizes(memory)) == 0


def test_the_size_of_a_conversation_counts_although_its_responses_are_gone(memory: Database) -> None:
    store = SqlResponseStore(memory, Retention(ttl_s=60, max_responses=100, max_bytes=2000))
    previous_id = None
    for number in range(10):
        id_ = f"r{number}"
        store.save("ada", StoredResponse(id_, "{}", "[]"), messages=["m" * 300], previous_id=previous_id)
        previous_id = id_
    assert sum(sizes(memory)) <= 2000
