"""Nobody reads, changes or deletes what belongs to another owner: random histories beside a model of them."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from turnwise_server.store.base import CompletionQuery, StoredCompletion, StoredResponse
from turnwise_server.store.completions import SqlCompletionStore
from turnwise_server.store.connect import open_database
from turnwise_server.store.database import Database
from turnwise_server.store.responses import SqlResponseStore
from turnwise_server.store.tables import Base

OWNERS = ["", "ada", "bob"]
IDS = ["x1", "x2"]
HISTORIES = st.lists(
    st.tuples(st.sampled_from(["save", "change", "delete"]), st.sampled_from(OWNERS), st.sampled_from(IDS)),
    max_size=12,
)
EVERY = [(owner, id_) for owner in OWNERS for id_ in IDS]
Model = dict[tuple[str, str], Any]


def emptied(database_url: str) -> Database:
    database = open_database(database_url)
    database.check()
    Base.metadata.drop_all(database._engine)
    Base.metadata.create_all(database._engine)
    return database


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(HISTORIES)
def test_completions_belong_to_their_owner(database_url: str, history: list[tuple[str, str, str]]) -> None:
    database = emptied(database_url)
    store, model = SqlCompletionStore(database), Model()
    for step, (action, owner, id_) in enumerate(history):
        key, mark = (owner, id_), {"step": str(step)}
        if action == "save" and key not in model:
            store.save(owner, StoredCompletion(id_, "m", f'"{owner}"', mark), [f'"{owner}"'])
            model[key] = mark
        elif action == "change":
            changed = store.set_metadata(owner, id_, mark)
            assert (changed is not None) == (key in model)
            model |= {key: mark} if changed else {}
        elif action == "delete":
            assert store.delete(owner, id_) == (model.pop(key, None) is not None)
    for owner, id_ in EVERY:
        found, known = store.get(owner, id_), model.get((owner, id_))
        assert (found and found.metadata) == known
        assert found is None or found.body == f'"{owner}"'
        assert store.messages(owner, id_) == (None if known is None else [f'"{owner}"'])
    for owner in OWNERS:
        listed, _ = store.page(owner, CompletionQuery(limit=9))
        assert [item.id for item in listed] == [id_ for id_ in IDS if (owner, id_) in model]
    database.close()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(HISTORIES)
def test_responses_belong_to_their_owner(database_url: str, history: list[tuple[str, str, str]]) -> None:
    database = emptied(database_url)
    store, model = SqlResponseStore(database), Model()
    for action, owner, id_ in history:
        key, other = (owner, id_), next(one for one in IDS if one != id_)
        if action == "save" and key not in model:
            message = f'"{owner}"'
            store.save(owner, StoredResponse(id_, "{}", "[]"), messages=[message], previous_id=other)
            model[key] = [*model.get((owner, other), []), message]
        elif action == "change":
            assert store.update(owner, id_, body=f'"{owner}"') == (key in model)
        elif action == "delete":
            assert store.delete(owner, id_) == (model.pop(key, None) is not None)
    for owner, id_ in EVERY:
        found = store.get(owner, id_)
        assert (found is not None) == ((owner, id_) in model)
        assert found is None or found.body in ("{}", f'"{owner}"')
        assert store.conversation(owner, id_) == model.get((owner, id_))
    database.close()
