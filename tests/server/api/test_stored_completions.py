"""Stored chat completions over HTTP: kept on request, listed, changed, deleted, and nobody else's."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI, NotFoundError

from support.asgi_connection import AsgiConnection, until
from support.fake_server import HELLO, FakeServer, fake_server
from turnwise_server.auth import KeyRing, hash_key
from turnwise_server.errors import StoreError
from turnwise_server.store.base import StoredCompletion
from turnwise_server.store.connect import open_database

ROUTE = "/v1/chat/completions"
STORED: dict[str, Any] = {"model": "test", "messages": HELLO, "store": True}


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with fake_server("Hi!", "Hello to you.") as running:
        yield running


def client_of(server: FakeServer, key: str = "unused") -> AsyncOpenAI:
    return AsyncOpenAI(
        base_url="http://127.0.0.1:8000/v1", api_key=key, max_retries=0, http_client=server.client
    )


async def stored_id(server: FakeServer, **body: Any) -> str:
    """Have a reply stored and return its id."""
    reply = await server.chat(store=True, **body)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["id"])


def frames(reply: httpx2.Response) -> list[str]:
    return [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: ")]


async def test_a_whole_reply_is_stored_as_it_was_sent_with_what_was_asked_for(server: FakeServer) -> None:
    sent = await server.chat(
        store=True, metadata={"topic": "jokes"}, temperature=0.5, seed=7, user="u1", logprobs=True, n=2
    )
    found = (await server.client.get(f"{ROUTE}/{sent.json()['id']}")).json()
    assert "x-ignored-params" not in sent.headers
    assert found == sent.json() | {
        "metadata": {"topic": "jokes"},
        "request_id": sent.headers["x-request-id"],
        "input_user": "u1",
        "temperature": 0.5,
        "top_p": None,
        "presence_penalty": None,
        "frequency_penalty": None,
        "seed": 7,
        "tools": None,
        "tool_choice": None,
        "response_format": None,
    }
    assert len(found["choices"]) == 2


async def test_a_streamed_reply_is_stored_as_the_whole_reply_it_adds_up_to(server: FakeServer) -> None:
    streamed = await server.chat(store=True, stream=True, seed=1)
    opening, *_, done = frames(streamed)
    assert done == "[DONE]"
    whole = (await server.chat(seed=1)).json()
    found = (await server.client.get(f"{ROUTE}/{json.loads(opening)['id']}")).json()
    assert found["choices"][0]["message"]["content"] == "Hi!"
    assert found["usage"]["completion_tokens"] > 0
    assert set(whole) < set(found)


async def test_structured_parameters_are_stored_as_they_were_sent() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    sent = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    async with fake_server('{"a":1}') as server:
        id_ = await stored_id(server, response_format=sent)
        found = (await server.client.get(f"{ROUTE}/{id_}")).json()
    assert found["response_format"] == sent


async def test_a_stream_says_done_only_when_its_reply_is_stored(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    completions, begun, may_end = server.services.storage.completions, Event(), Event()
    save = completions.save

    def slow_save(owner: str, completion: StoredCompletion, messages: Sequence[str]) -> None:
        begun.set()
        may_end.wait(5)
        save(owner, completion, messages)

    monkeypatch.setattr(completions, "save", slow_save)
    connection = AsgiConnection(server.app, STORED | {"stream": True})
    await until(begun.is_set)
    assert '"finish_reason":"stop"' in connection.text
    assert "[DONE]" not in connection.text
    may_end.set()
    await connection.task
    assert "[DONE]" in connection.text
    assert len((await server.client.get(ROUTE)).json()["data"]) == 1


@pytest.mark.parametrize("body", [{}, {"store": False}, {"store": None}, {"metadata": {"a": "b"}}])
@pytest.mark.parametrize("stream", [False, True])
async def test_nothing_is_stored_that_did_not_ask_for_it(
    tmp_path: Path, body: dict[str, Any], stream: bool
) -> None:
    database = open_database(f"sqlite:///{tmp_path}/store/test.db")
    async with fake_server(database=database) as server:
        reply = await server.chat(stream=stream, **body)
        listed = await server.client.get(ROUTE)
        missing = await server.client.get(f"{ROUTE}/chatcmpl-1")
    assert reply.status_code == 200
    assert listed.json()["data"] == []
    assert missing.status_code == 404
    assert database.look_up(lambda _: "there", nothing="nothing") == "nothing"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_reply_that_its_client_left_is_not_stored(stream: bool) -> None:
    async with fake_server("the quick brown fox " * 20, token_delay_s=0.01) as server:
        connection = AsgiConnection(server.app, STORED | {"stream": stream})
        await until(lambda: server.engine.stats().generated_tokens > 4)
        connection.hang_up()
        await connection.task
        assert (await server.client.get(ROUTE)).json()["data"] == []


async def test_the_sdk_lists_reads_changes_and_deletes(server: FakeServer) -> None:
    completions = client_of(server).chat.completions
    made = await completions.create(
        model="test",
        messages=[{"role": "user", "content": "hello"}],
        store=True,
        metadata={"topic": "jokes"},
    )
    other = await completions.create(
        model="test", messages=[{"role": "user", "content": "hello"}], store=True
    )
    assert [item.id async for item in completions.list()] == [made.id, other.id]
    assert [item.id async for item in completions.list(limit=1, order="desc")] == [other.id, made.id]
    assert [item.id async for item in completions.list(metadata={"topic": "jokes"})] == [made.id]
    assert [item.id async for item in completions.list(model="other")] == []
    found = await completions.retrieve(made.id)
    assert found.choices == made.choices
    assert found.metadata == {"topic": "jokes"}
    changed = await completions.update(made.id, metadata={"topic": "songs", "stars": "5"})
    assert changed.metadata == {"topic": "songs", "stars": "5"}
    assert (await completions.retrieve(made.id)).metadata == changed.metadata
    messages = [message async for message in completions.messages.list(made.id)]
    assert [(message.id, message.content) for message in messages] == [(f"{made.id}-0", "hello")]
    deleted = await completions.delete(made.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (made.id, True, "chat.completion.deleted")
    with pytest.raises(NotFoundError):
        await completions.retrieve(made.id)
    assert [item.id async for item in completions.list()] == [other.id]


async def test_everything_can_be_deleted_while_it_is_listed(server: FakeServer) -> None:
    for _ in range(5):
        await stored_id(server)
    completions = client_of(server).chat.completions
    async for item in completions.list(limit=2):
        await completions.delete(item.id)
    assert (await server.client.get(ROUTE)).json()["data"] == []


async def test_a_page_says_where_it_begins_and_ends(server: FakeServer) -> None:
    ids = [await stored_id(server) for _ in range(3)]
    page = (await server.client.get(ROUTE, params={"limit": 2})).json()
    assert list(page) == ["object", "data", "first_id", "last_id", "has_more"]
    assert (page["object"], page["first_id"], page["last_id"]) == ("list", ids[0], ids[1])
    assert page["has_more"] is True
    rest = (await server.client.get(ROUTE, params={"limit": 2, "after": ids[1]})).json()
    assert [item["id"] for item in rest["data"]] == ids[2:]
    assert rest["has_more"] is False
    empty = (await server.client.get(ROUTE, params={"after": ids[2]})).json()
    assert empty == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


async def test_messages_are_listed_in_pages_with_their_parts(server: FakeServer) -> None:
    parts = [{"type": "text", "text": "good"}, {"type": "text", "text": "morning"}]
    sent = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": parts, "name": "ada"},
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "user", "content": 'a "quoted"\nline \U0001f600'},
    ]
    route = f"{ROUTE}/{await stored_id(server, messages=sent)}/messages"
    page = (await server.client.get(route)).json()
    texts = [message["content"] for message in page["data"]]
    assert texts == ["Be kind.", "good\nmorning", None, 'a "quoted"\nline \U0001f600']
    assert [message["content_parts"] for message in page["data"]] == [None, parts, None, None]
    assert page["data"][1]["name"] == "ada"
    assert page["data"][2]["refusal"] == "No."
    first = (await server.client.get(route, params={"limit": 3, "order": "desc"})).json()
    assert [message["content"] for message in first["data"]] == texts[:0:-1]
    assert first["has_more"] is True
    last = (await server.client.get(route, params={"order": "desc", "after": first["last_id"]})).json()
    assert [message["content"] for message in last["data"]] == texts[:1]
    assert last["has_more"] is False


async def call(server: FakeServer, method: str, id_: str, path: str = "", key: str = "") -> httpx2.Response:
    body: dict[str, Any] | None = {"metadata": {}} if method == "POST" else None
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return await server.client.request(method, f"{ROUTE}/{id_}{path}", headers=headers, json=body)


ROUTES = [("GET", ""), ("POST", ""), ("DELETE", ""), ("GET", "/messages")]


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_the_object_of_another_key_does_not_exist(method: str, path: str) -> None:
    keys = KeyRing([hash_key("key-of-ada"), hash_key("key-of-bob")])
    async with fake_server(keys=keys, headers={"authorization": "Bearer key-of-ada"}) as server:
        id_ = await stored_id(server, metadata={"a": "b"})
        before = (await call(server, "GET", id_)).json()
        foreign = await call(server, method, id_, path, key="key-of-bob")
        unknown = await call(server, method, id_[:-1] + "!", path, key="key-of-bob")
        after = (await call(server, "GET", id_)).json()
        listed = await server.client.get(ROUTE, headers={"authorization": "Bearer key-of-bob"})
    assert foreign.status_code == unknown.status_code == 404
    assert foreign.json()["error"] == {
        "message": f"Chat completion with id '{id_}' not found.",
        "type": "invalid_request_error",
        "param": None,
        "code": "not_found",
    }
    assert unknown.text == foreign.text.replace(id_, id_[:-1] + "!")
    assert before == after
    assert listed.json()["data"] == []


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("id_", ["chatcmpl-x", "%00", "..%2f", "a%27;--", "é", "x" * 5000, "%F0%9F%98%80"])
async def test_what_cannot_be_an_id_is_not_found(
    server: FakeServer, method: str, path: str, id_: str
) -> None:
    await stored_id(server)
    reply = await call(server, method, id_, path)
    assert reply.status_code == 404
    assert reply.json()["error"]["code"] in ("not_found", "unknown_url")


@pytest.mark.parametrize(
    ("query", "param", "code"),
    [
        ("limit=0", "limit", "integer_below_min_value"),
        ("limit=101", "limit", "integer_above_max_value"),
        ("limit=ten", "limit", "invalid_type"),
        ("limit=1e1", "limit", "invalid_type"),
        ("limit=", "limit", "invalid_type"),
        ("limit=" + "9" * 5000, "limit", "invalid_type"),
        ("limit[x]=1", "limit", "invalid_type"),
        ("order=up", "order", "invalid_value"),
        ("after=%00", "after", "invalid_value"),
        ("metadata=x", "metadata", "invalid_type"),
        ("metadata[k]=%00", "metadata.k", "invalid_value"),
        ("model=%00", "model", "invalid_value"),
    ],
)
async def test_a_query_that_is_wrong_is_refused_by_name(
    server: FakeServer, query: str, param: str, code: str
) -> None:
    reply = await server.client.get(f"{ROUTE}?{query}")
    assert reply.status_code == 400, reply.text
    assert (reply.json()["error"]["param"], reply.json()["error"]["code"]) == (param, code)


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "metadata", "missing_required_parameter"),
        ({"metadata": "x"}, "metadata", "invalid_type"),
        ({"metadata": {"k": 1}}, "metadata.k", "invalid_type"),
        ({"metadata": {"k": "x" * 513}}, "metadata.k", "string_above_max_length"),
        ({"metadata": {"k" * 65: "x"}}, f"metadata.{'k' * 65}", "string_above_max_length"),
        ({"metadata": {"k\0": "x"}}, "metadata.k\0", "invalid_value"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata", "object_above_max_properties"),
    ],
)
async def test_metadata_that_is_wrong_is_refused_by_name_when_made_and_when_changed(
    server: FakeServer, body: dict[str, Any], param: str, code: str
) -> None:
    id_ = await stored_id(server, metadata={"a": "b"})
    changed = await server.client.post(f"{ROUTE}/{id_}", json=body)
    assert changed.status_code == 400
    assert (changed.json()["error"]["param"], changed.json()["error"]["code"]) == (param, code)
    assert (await call(server, "GET", id_)).json()["metadata"] == {"a": "b"}
    if body:
        made = await server.chat(store=True, **body)
        assert (made.json()["error"]["param"], made.json()["error"]["code"]) == (param, code)


async def test_null_metadata_takes_all_of_it_away(server: FakeServer) -> None:
    id_ = await stored_id(server, metadata={"a": "b"})
    changed = await server.client.post(f"{ROUTE}/{id_}", json={"metadata": None})
    assert changed.json()["metadata"] == {}


async def test_a_reply_that_cannot_be_stored_is_refused_before_it_is_made(
    tmp_path: Path, log_lines: list[dict[str, Any]]
) -> None:
    (tmp_path / "test.db").write_bytes(b"not a database" * 1000)
    async with fake_server(database=open_database(f"sqlite:///{tmp_path}/test.db")) as server:
        refused = [await server.chat(store=True, stream=stream) for stream in (False, True)]
        served = await server.chat()
        listed = await server.client.get(ROUTE)
    for reply in (*refused, listed):
        assert reply.status_code == 503
        assert reply.json()["error"]["code"] == "storage_unavailable"
        assert reply.json()["error"]["type"] == "service_unavailable_error"
        assert reply.headers["retry-after"]
        assert str(tmp_path) not in reply.text
    assert served.status_code == 200
    assert "file is not a database" in str([line for line in log_lines if line["event"] == "storage_failed"])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_reply_whose_storing_fails_says_so_instead_of_ending_well(
    server: FakeServer, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(server.services.storage.completions, "save", fail)
    reply = await server.chat(store=True, stream=stream)
    error = json.loads(frames(reply)[-1] if stream else reply.text)["error"]
    assert error["code"] == "storage_unavailable"
    assert reply.status_code == (200 if stream else 503)
    assert "disk" not in reply.text


async def test_ids_sort_by_the_time_they_were_made(server: FakeServer) -> None:
    ids = []
    for _ in range(4):
        ids.append(await stored_id(server))
        await asyncio.sleep(0.002)
    assert ids == sorted(ids)
