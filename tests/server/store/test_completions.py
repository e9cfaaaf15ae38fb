"""Stored chat completions, on both databases."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from turnwise_server.store import completions
from turnwise_server.store.base import CompletionQuery, StoredCompletion
from turnwise_server.store.completions import SqlCompletionStore
from turnwise_server.store.database import Database

HELLO = '{"role":"user","content":"hello"}'


@pytest.fixture
def store(database: Database) -> SqlCompletionStore:
    return SqlCompletionStore(database)


def completion(id_: str, model: str = "m", body: str = "{}", **metadata: str) -> StoredCompletion:
    return StoredCompletion(id=id_, model=model, body=body, metadata=metadata)


def ids(found: tuple[list[StoredCompletion], bool]) -> list[str]:
    return [item.id for item in found[0]]


def test_what_was_stored_comes_back(store: SqlCompletionStore) -> None:
    saved = completion("c1", body='{"text":"é \U0001f600 \\u0000"}', topic="jokes")
    store.save("ada", saved, [HELLO, '{"role":"user","content":"a\\nb"}'])
    assert store.get("ada", "c1") == saved
    assert store.messages("ada", "c1") == [HELLO, '{"role":"user","content":"a\\nb"}']


def test_what_was_never_stored_is_not_there(store: SqlCompletionStore) -> None:
    for _ in range(2):
        assert store.get("ada", "c1") is None
        assert store.messages("ada", "c1") is None
        assert store.set_metadata("ada", "c1", {"a": "b"}) is None
        assert store.delete("ada", "c1") is False
        assert store.page("ada", CompletionQuery(limit=5)) == ([], False)
        store.save("ada", completion("c2"), [HELLO])
        store.delete("ada", "c2")


def test_lists_follow_the_bytes_of_the_ids_in_both_orders(store: SqlCompletionStore) -> None:
    for id_ in ("cB", "ca", "c0", "cA", "cb"):
        store.save("ada", completion(id_), [HELLO])
    assert ids(store.page("ada", CompletionQuery(limit=9))) == ["c0", "cA", "cB", "ca", "cb"]
    assert ids(store.page("ada", CompletionQuery(limit=9, order="desc"))) == ["cb", "ca", "cB", "cA", "c0"]


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_cover_a_list_without_gaps_although_every_object_is_deleted_on_the_way(
    store: SqlCompletionStore, order: str
) -> None:
    stored = [f"c{number}" for number in range(7)]
    for id_ in stored:
        store.save("ada", completion(id_), [HELLO])
    seen: list[str] = []
    has_more, after = True, None
    while has_more:
        found, has_more = store.page("ada", CompletionQuery(2, after, "asc" if order == "asc" else "desc"))
        seen += [item.id for item in found]
        after = found[-1].id
        for item in found:
            assert store.delete("ada", item.id)
    assert seen == (stored if order == "asc" else stored[::-1])


def test_lists_choose_by_model_and_by_every_pair_of_metadata(store: SqlCompletionStore) -> None:
    store.save("ada", completion("c1", "m", a="1", b="1"), [HELLO])
    store.save("ada", completion("c2", "m", a="1", b="2"), [HELLO])
    store.save("ada", completion("c3", "n", a="1"), [HELLO])

    def found(model: str | None = None, **metadata: str) -> list[str]:
        return ids(store.page("ada", CompletionQuery(9, model=model, metadata=metadata)))

    assert found(a="1") == ["c1", "c2", "c3"]
    assert found(a="1", b="2") == ["c2"]
    assert found(b="3") == []
    assert found("n") == ["c3"]
    assert found("n", b="1") == []


def test_a_page_ends_early_rather_than_grow_without_bounds(
    store: SqlCompletionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completions, "MAX_PAGE_BYTES", 1000)
    for number in range(20):
        store.save("ada", completion(f"c{number:02}", body=f'{{"x":"{"y" * 400}"}}'), [HELLO])
    found, has_more = store.page("ada", CompletionQuery(limit=20))
    assert (len(found), has_more) == (2, True)
    store.save("ada", completion("c99", body=f'{{"x":"{"y" * 4000}"}}'), [HELLO])
    assert ids(store.page("ada", CompletionQuery(20, after="c19"))) == ["c99"]


def test_metadata_is_replaced_as_a_whole(store: SqlCompletionStore) -> None:
    store.save("ada", completion("c1", a="1", b="2"), [HELLO])
    changed = store.set_metadata("ada", "c1", {"b": "3", "c": "4"})
    assert changed is not None
    assert changed.metadata == {"b": "3", "c": "4"}
    assert store.get("ada", "c1") == changed
    assert ids(store.page("ada", CompletionQuery(9, metadata={"a": "1"}))) == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=64),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=512),
        max_size=16,
    )
)
def test_any_metadata_survives_and_can_be_searched_for(
    store: SqlCompletionStore, metadata: dict[str, str]
) -> None:
    store.delete("ada", "c1")
    store.save("ada", completion("c1"), [HELLO])
    store.set_metadata("ada", "c1", metadata)
    assert store.page("ada", CompletionQuery(9, metadata=metadata))[0] == [completion("c1", **metadata)]


def test_concurrent_changes_lose_nothing(store: SqlCompletionStore) -> None:
    store.save("ada", completion("shared"), [HELLO])

    def work(thread: int) -> None:
        for number in range(5):
            store.save("ada", completion(f"c{thread}-{number}"), [HELLO])
            store.set_metadata("ada", "shared", dict.fromkeys("abcd", f"{thread}-{number}"))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert len(store.page("ada", CompletionQuery(limit=100))[0]) == 41
    shared = store.get("ada", "shared")
    assert shared is not None
    assert len(shared.metadata) == 4
    assert len(set(shared.metadata.values())) == 1, "two updates were mixed"


def test_a_reply_of_many_megabytes_is_stored_whole(store: SqlCompletionStore) -> None:
    body = '{"text":"' + "é" * 5_000_000 + '"}'
    store.save("ada", completion("c1", body=body), [HELLO])
    found = store.get("ada", "c1")
    assert found is not None
    assert found.body == body
