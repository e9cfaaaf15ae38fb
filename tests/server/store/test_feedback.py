"""Votes on stored replies: one a choice, gone with their reply, nobody else's; in old databases too."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import func, select

from turnwise_server.store.base import StoredCompletion, StoredResponse, Vote
from turnwise_server.store.completions import SqlCompletionStore
from turnwise_server.store.database import Database
from turnwise_server.store.feedback import SqlFeedbackStore
from turnwise_server.store.migrate import MIGRATIONS
from turnwise_server.store.responses import SqlResponseStore
from turnwise_server.store.tables import FeedbackRow

UP = Vote("c1", 0, "up", ("clear", 'a "quoted"\nline'), "Très bien \U0001f600", "m", "fp_1", 1_760_000_000)
DOWN = replace(UP, rating="down", reasons=(), comment=None, system_fingerprint=None, created_at=1_760_000_001)


def save_completion(database: Database, owner: str = "ada", id_: str = "c1") -> None:
    SqlCompletionStore(database).save(owner, StoredCompletion(id_, "m", "{}"), ["{}"])


def count_votes(database: Database) -> int:
    count = select(func.count()).select_from(FeedbackRow)
    return database.look_up(lambda session: session.scalar(count) or 0, nothing=0)


def test_a_vote_is_kept_whole_and_replaced_by_the_next_on_its_choice(database: Database) -> None:
    save_completion(database)
    store = SqlFeedbackStore(database)
    assert store.save("ada", UP) == UP
    assert store.save("ada", replace(UP, choice=1)) is not None
    assert store.votes("ada", "c1") == [UP, replace(UP, choice=1)]
    assert store.save("ada", DOWN) == DOWN
    assert store.votes("ada", "c1") == [DOWN, replace(UP, choice=1)]
    store.delete("ada", "c1")
    assert store.votes("ada", "c1") == []


def test_a_key_sent_again_changes_nothing_while_its_vote_stands(database: Database) -> None:
    save_completion(database)
    store = SqlFeedbackStore(database)
    first = replace(UP, idempotency_key="k1")
    store.save("ada", first)
    assert store.save("ada", replace(first, created_at=9)) == first
    other = replace(DOWN, idempotency_key="k2")
    assert store.save("ada", other) == other
    assert store.votes("ada", "c1") == [other]


def test_there_is_no_vote_without_a_stored_reply_of_the_owner(database: Database) -> None:
    store = SqlFeedbackStore(database)
    assert store.save("ada", UP) is None
    save_completion(database)
    assert store.save("bob", UP) is None
    store.save("ada", UP)
    store.delete("bob", "c1")
    assert store.votes("bob", "c1") == []
    assert store.votes("ada", "c1") == [UP]


def test_the_votes_of_a_reply_go_with_it_and_no_others(database: Database) -> None:
    completions, responses, store = (
        SqlCompletionStore(database),
        SqlResponseStore(database),
        SqlFeedbackStore(database),
    )
    for owner in ("ada", "bob"):
        save_completion(database, owner)
        responses.save(owner, StoredResponse("r1", "{}", "[]"), messages=["{}"])
        for object_id in ("c1", "r1"):
            store.save(owner, replace(UP, object_id=object_id))
    assert count_votes(database) == 4
    assert completions.delete("ada", "c1")
    assert count_votes(database) == 3
    assert responses.delete("ada", "r1")
    assert not completions.delete("ada", "c1")
    assert count_votes(database) == 2
    assert store.votes("bob", "c1") == [UP]


def test_votes_and_the_deletion_of_their_reply_at_once_leave_nothing_behind(database: Database) -> None:
    completions, store = SqlCompletionStore(database), SqlFeedbackStore(database)

    def vote_or_delete(number: int) -> None:
        if number % 8 == 5:
            completions.delete("ada", f"c{number // 8}")
        elif number % 8 == 3:
            store.delete("ada", f"c{number // 8}")
        else:
            store.save("ada", replace(UP, object_id=f"c{number // 8}"))

    for number in range(8):
        save_completion(database, id_=f"c{number}")
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(vote_or_delete, range(64)))
    assert count_votes(database) == 0


@pytest.fixture
def first_version(database_url: str, opened: Callable[[str | None], Database]) -> Database:
    """A database as the first version of the tables left it, with something in it."""
    database = opened(database_url)
    database.check()
    with database._writer.begin() as connection:
        config = Config()
        config.set_main_option("script_location", MIGRATIONS)
        config.attributes["connection"] = connection
        FeedbackRow.metadata.drop_all(connection)
        connection.exec_driver_sql("DROP TABLE alembic_version")
        command.upgrade(config, "0001")
    with database._writer.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO chat_completions VALUES ('ada', 'c1', 'm', '{\"a\":1}', '{}')"
        )
        connection.exec_driver_sql("INSERT INTO chat_completion_metadata VALUES ('ada', 'c1', 'topic', 'x')")
    database.close()
    return opened(database_url)


def test_a_database_of_the_first_version_takes_votes_and_keeps_what_is_in_it(first_version: Database) -> None:
    kept = SqlCompletionStore(first_version).get("ada", "c1")
    assert kept == StoredCompletion("c1", "m", '{"a":1}', {"topic": "x"})
    store = SqlFeedbackStore(first_version)
    assert store.save("ada", UP) == UP
    assert store.votes("ada", "c1") == [UP]
