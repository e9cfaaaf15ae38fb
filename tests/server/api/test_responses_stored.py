"""Responses that are kept: continued, read, listed, deleted; by nobody but their owner."""

from pathlib import Path
from typing import Any

import pytest
from openai.types.responses import ResponseItemList

from support.fake_server import FakeServer, fake_server
from support.responses import events_of, respond
from turnwise_server.api.responses.past import MAX_REFERRED
from turnwise_server.auth import KeyRing, hash_key
from turnwise_server.errors import StoreError
from turnwise_server.store.connect import open_database

ADA, BOB = ({"authorization": f"Bearer key-of-{name}-0123456789"} for name in ("ada", "bob"))
RING = KeyRing([hash_key("key-of-ada-0123456789", "ada"), hash_key("key-of-bob-0123456789", "bob")])


def url(response: dict[str, Any], suffix: str = "") -> str:
    return f"/v1/responses/{response['id']}{suffix}"


async def turn(server: FakeServer, text: str, previous: dict[str, Any] | None = None, **body: Any) -> Any:
    reply = await respond(server, input=text, previous_response_id=previous and previous["id"], **body)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def chat_prompt(server: FakeServer, *messages: tuple[str, str]) -> tuple[int, ...]:
    await server.chat(messages=[{"role": role, "content": content} for role, content in messages])
    return server.engine.requests[-1].prompt_ids


async def test_a_response_continues_the_one_before_it_without_its_instructions() -> None:
    async with fake_server("One.", "Two.", "Three.") as server:
        first = await turn(server, "a", instructions="Be kind.")
        second = await turn(server, "b", first, instructions="Be short.")
        await turn(server, "c", second)
        third = server.engine.requests[-1].prompt_ids
        said = [("user", "a"), ("assistant", "One."), ("user", "b"), ("assistant", "Two."), ("user", "c")]
        assert third == await chat_prompt(server, *said)
        assert second["previous_response_id"] == first["id"]
        assert second["instructions"] == "Be short."


async def test_two_responses_may_continue_the_same_one() -> None:
    async with fake_server("One.") as server:
        first = await turn(server, "a")
        for text in ("b", "c"):
            await turn(server, text, first)
            own = server.engine.requests[-1].prompt_ids
            assert own == await chat_prompt(server, ("user", "a"), ("assistant", "One."), ("user", text))


async def test_input_may_be_left_out_where_a_response_is_continued() -> None:
    async with fake_server("One.") as server:
        first = await turn(server, "a")
        reply = await server.client.post(
            "/v1/responses", json={"model": "test", "previous_response_id": first["id"]}
        )
        assert reply.status_code == 200
        listed = (await server.client.get(url(reply.json(), "/input_items"))).json()
    assert (listed["data"], listed["has_more"]) == ([], False)


@pytest.mark.parametrize("kinds", [(None, True), (True, None)])
async def test_stored_and_remembered_responses_continue_each_other(kinds: tuple[bool | None, ...]) -> None:
    async with fake_server("One.", "Two.") as server:
        first = await turn(server, "a", store=kinds[0])
        second = await turn(server, "b", first, store=kinds[1])
        await server.client.delete(url(first))
        await turn(server, "c", second)
        own = server.engine.requests[-1].prompt_ids
        said = [("user", "a"), ("assistant", "One."), ("user", "b"), ("assistant", "Two."), ("user", "c")]
        assert own == await chat_prompt(server, *said)


async def test_a_response_that_is_not_stored_cannot_be_found_or_continued() -> None:
    async with fake_server() as server:
        first = await turn(server, "a", store=False)
        assert first["store"] is False
        found = await server.client.get(url(first))
        continued = await respond(server, previous_response_id=first["id"])
    assert (found.status_code, found.json()["error"]["code"]) == (404, "not_found")
    error = continued.json()["error"]
    assert (continued.status_code, error["code"], error["param"]) == (
        400,
        "previous_response_not_found",
        "previous_response_id",
    )


async def test_nothing_is_written_unless_store_is_true(tmp_path: Path) -> None:
    file = tmp_path / "server.db"
    async with fake_server(database=open_database(f"sqlite:///{file}")) as server:
        first = await turn(server, "a")
        await turn(server, "b", first, store=False)
        assert (await server.client.get(url(first))).json() == first
        assert not file.exists()
        kept = await turn(server, "c", first, store=True)
        assert file.exists()
    async with fake_server(database=open_database(f"sqlite:///{file}")) as server:
        assert (await server.client.get(url(kept))).json() == kept
        assert (await server.client.get(url(first))).status_code == 404
        await turn(server, "d", kept)
        own = server.engine.requests[-1].prompt_ids
        said = [("user", "a"), ("assistant", "Hi!"), ("user", "c"), ("assistant", "Hi!"), ("user", "d")]
        assert own == await chat_prompt(server, *said)


@pytest.mark.parametrize("store", [None, True])
async def test_a_streamed_response_is_kept_like_a_whole_one(store: bool | None) -> None:
    async with fake_server() as server:
        events = events_of((await respond(server, stream=True, store=store)).text)
        sent = events[-1]["response"]
        assert (await server.client.get(url(sent))).json() == sent


@pytest.mark.parametrize("store", [None, True])
async def test_a_deleted_response_is_gone(store: bool | None) -> None:
    async with fake_server() as server:
        first = await turn(server, "a", store=store)
        deleted = await server.client.delete(url(first))
        again = await server.client.delete(url(first))
        found = await server.client.get(url(first))
    assert deleted.json() == {"id": first["id"], "object": "response.deleted", "deleted": True}
    assert again.status_code == found.status_code == 404
    assert again.json()["error"]["message"] == f"Response with id '{first['id']}' not found."


@pytest.mark.parametrize("store", [None, True])
async def test_nobody_reaches_a_response_of_another_key(store: bool | None) -> None:
    async with fake_server(keys=RING, headers=ADA) as server:
        first = await turn(server, "a", store=store)
        item = first["output"][0]["id"]
        for method, suffix in [
            ("GET", ""),
            ("GET", "?stream=true"),
            ("GET", "/input_items"),
            ("POST", "/cancel"),
            ("DELETE", ""),
        ]:
            reply = await server.client.request(method, url(first, suffix), headers=BOB)
            assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")
        body: dict[str, Any] = {"model": "test", "input": "b", "previous_response_id": first["id"]}
        for path in ("/v1/responses", "/v1/responses/input_tokens"):
            reply = await server.client.post(path, json=body, headers=BOB)
            assert reply.json()["error"]["code"] == "previous_response_not_found"
        body = {"model": "test", "input": [{"type": "item_reference", "id": item}]}
        assert (await server.client.post("/v1/responses", json=body, headers=BOB)).status_code == 404
        assert (await server.client.post("/v1/responses", json=body)).status_code == 200
        assert (await server.client.get(url(first))).json() == first


@pytest.mark.parametrize(
    "response_id", ["resp_", "x", "resp_%00", "resp_é", "resp_" + "a" * 5000, "input_tokens"]
)
async def test_what_cannot_be_an_id_is_not_found(response_id: str) -> None:
    async with fake_server() as server:
        for method, suffix in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")):
            reply = await server.client.request(method, f"/v1/responses/{response_id}{suffix}")
            assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")
            assert len(reply.content) < 1000


async def test_input_items_are_listed_with_ids_in_pages() -> None:
    items: list[dict[str, Any]] = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {"role": "assistant", "content": "b", "id": "msg_mine"},
        {"role": "user", "content": "c"},
    ]
    async with fake_server() as server:
        response = (await respond(server, input=items)).json()
        path = url(response, "/input_items")
        listed = (await server.client.get(path, params={"order": "asc"})).json()
        newest = (await server.client.get(path, params={"limit": 3})).json()
        rest = (await server.client.get(path, params={"limit": 3, "after": newest["last_id"]})).json()
        refused = await server.client.get(path, params={"limit": 101})
    ResponseItemList.model_validate(listed)
    assert [(item["role"], item["content"][0]["text"]) for item in listed["data"]] == [
        ("system", "s"),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c"),
    ]
    assert listed["data"][1] == {
        "id": listed["data"][1]["id"],
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_text", "text": "a"}],
    }
    assert listed["data"][2]["id"] == "msg_mine"
    assert len({item["id"] for item in listed["data"]}) == 4
    assert [*newest["data"], *rest["data"]] == listed["data"][::-1]
    assert (newest["has_more"], rest["has_more"]) == (True, False)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "limit")


async def test_items_of_kept_responses_can_be_referred_to() -> None:
    async with fake_server("One.", "Two.") as server:
        first = await turn(server, "a", store=True)
        asked = (await server.client.get(url(first, "/input_items"))).json()["data"][0]
        ids = [asked["id"], first["output"][0]["id"]]
        references = [{"type": "item_reference", "id": item_id} for item_id in ids]
        reply = await respond(server, input=[*references, {"role": "user", "content": "b"}])
        own = server.engine.requests[-1].prompt_ids
        assert reply.status_code == 200
        assert own == await chat_prompt(server, ("user", "a"), ("assistant", "One."), ("user", "b"))
        listed = (await server.client.get(url(reply.json(), "/input_items"), params={"order": "asc"})).json()
    assert [item["id"] for item in listed["data"][:2]] == ids


@pytest.mark.parametrize("item_id", ["msg_unknown", "rs_abc", "msg_aaaao0"])
async def test_a_reference_to_nothing_is_404(item_id: str) -> None:
    async with fake_server() as server:
        reply = await respond(server, input=[{"type": "item_reference", "id": item_id}])
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (404, "not_found", "input[0].id")


async def test_input_tokens_are_those_that_a_response_uses() -> None:
    async with fake_server("One.") as server:
        first = await turn(server, "a")
        body: dict[str, Any] = {
            "model": "test",
            "input": [{"role": "user", "content": "b"}],
            "instructions": "Be kind.",
            "previous_response_id": first["id"],
        }
        before = len(server.engine.requests)
        counted = await server.client.post("/v1/responses/input_tokens", json=body)
        assert len(server.engine.requests) == before, "counting needs no engine"
        response = (await server.client.post("/v1/responses", json=body)).json()
    assert counted.json() == {
        "object": "response.input_tokens",
        "input_tokens": response["usage"]["input_tokens"],
    }


async def test_input_tokens_of_what_is_too_long_are_counted_all_the_same() -> None:
    async with fake_server() as server:
        body = {"model": "test", "input": "hello " * 600}
        counted = await server.client.post("/v1/responses/input_tokens", json=body)
    assert counted.status_code == 200
    assert counted.json()["input_tokens"] > 512


async def test_a_response_that_was_not_made_in_the_background_cannot_be_cancelled_or_watched() -> None:
    async with fake_server() as server:
        first = await turn(server, "a")
        cancelled = await server.client.post(url(first, "/cancel"))
        watched = await server.client.get(url(first), params={"stream": "true"})
        odd = await server.client.get(url(first), params={"stream": "maybe"})
    assert cancelled.status_code == 400
    assert cancelled.json()["error"]["message"] == "Cannot cancel a synchronous response."
    assert (watched.status_code, watched.json()["error"]["param"]) == (400, "stream")
    assert (odd.status_code, odd.json()["error"]["param"]) == (400, "stream")


async def test_there_is_no_compaction() -> None:
    async with fake_server() as server:
        reply = await server.client.post("/v1/responses/compact", json={"model": "test", "input": "a"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "unknown_url")


async def test_ids_that_a_client_repeats_are_replaced_so_that_pages_come_to_an_end() -> None:
    items = [{"role": "user", "content": str(at), "id": "msg_same"} for at in range(3)]
    async with fake_server() as server:
        response = (await respond(server, input=items)).json()
        listed = (await server.client.get(url(response, "/input_items"), params={"order": "asc"})).json()
    assert [item["content"][0]["text"] for item in listed["data"]] == ["0", "1", "2"]
    assert len({item["id"] for item in listed["data"]}) == 3
    assert listed["first_id"] == "msg_same"


async def test_a_conversation_may_have_as_many_items_as_a_request() -> None:
    async with fake_server(settings={"max_messages": 4}) as server:
        first = await turn(server, "a")
        second = await turn(server, "b", first)
        message = [{"role": "user", "content": "c"}]
        reply = await respond(server, previous_response_id=second["id"], input=message)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (400, "previous_response_id")
    assert error["code"] == "array_above_max_length"


async def test_references_lead_to_a_bounded_number_of_responses() -> None:
    async with fake_server() as server:
        first = await turn(server, "a")
        known = [{"type": "item_reference", "id": first["output"][0]["id"]}] * 8
        assert (await respond(server, input=known)).status_code == 200
        made = [(await turn(server, "a"))["output"][0]["id"] for _ in range(MAX_REFERRED + 1)]
        reply = await respond(server, input=[{"type": "item_reference", "id": item_id} for item_id in made])
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, f"input[{MAX_REFERRED}].id")


async def test_what_cannot_be_stored_is_refused_before_it_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    broken = open_database(f"sqlite:///{tmp_path / 'file' / 'server.db'}")
    async with fake_server(database=broken) as server:
        for body in ({}, {"stream": True}, {"background": True}):
            reply = await respond(server, store=True, **body)
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "storage_unavailable")
        assert not server.engine.requests
        assert (await respond(server)).status_code == 200


@pytest.mark.parametrize("body", [{}, {"stream": True}])
async def test_a_response_that_cannot_be_stored_in_the_end_has_failed(
    body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise StoreError("the disk is full")

    async with fake_server() as server:
        monkeypatch.setattr(server.services.storage.responses, "save", fail)
        reply = await respond(server, store=True, **body)
    if body:
        failed, error = events_of(reply.text)[-2:]
        assert (failed["type"], error["code"]) == ("response.failed", "storage_unavailable")
        assert failed["response"]["status"] == "failed"
    else:
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "storage_unavailable")
    assert "disk" not in reply.text
