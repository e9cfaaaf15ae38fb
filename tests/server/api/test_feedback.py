"""Votes over HTTP: on stored replies of the key, one for each choice, and gone with what they are about."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from support.fake_server import FakeServer, fake_server
from turnwise_server.auth import KeyRing, hash_key

ROUTE = "/v1/feedback"
ADA, BOB = ({"authorization": f"Bearer key-of-{name}"} for name in ("ada", "bob"))
KEYS = KeyRing([hash_key("key-of-ada"), hash_key("key-of-bob")])


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with fake_server("Hi!", "Hello to you.", keys=KEYS, headers=ADA) as running:
        yield running


async def completion(server: FakeServer, **body: Any) -> dict[str, Any]:
    """Have a chat completion stored and return it."""
    reply = await server.chat(**({"store": True} | body))
    assert reply.status_code == 200, reply.text
    stored: dict[str, Any] = reply.json()
    return stored


async def response_id(server: FakeServer, **body: Any) -> str:
    reply = await server.client.post("/v1/responses", json={"model": "test", "input": "hello"} | body)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["id"])


async def vote(server: FakeServer, id_: str, rating: str = "up", **more: Any) -> httpx2.Response:
    return await server.client.post(ROUTE, json={"id": id_, "rating": rating} | more)


async def votes(server: FakeServer, id_: str) -> list[dict[str, Any]]:
    listed = (await server.client.get(f"{ROUTE}/{id_}")).json()
    assert listed["object"] == "list"
    found: list[dict[str, Any]] = listed["data"]
    return found


async def test_a_vote_names_the_model_and_fingerprint_of_what_it_is_about(server: FakeServer) -> None:
    stored = await completion(server)
    reply = await vote(server, stored["id"], "down", reasons=["untrue", "rude"], comment="It is not.")
    given = reply.json()
    assert reply.status_code == 200
    assert given.pop("created_at") >= stored["created"]
    assert stored["system_fingerprint"]
    assert given == {
        "id": stored["id"],
        "object": "feedback",
        "choice": 0,
        "rating": "down",
        "reasons": ["untrue", "rude"],
        "comment": "It is not.",
        "model": "test",
        "system_fingerprint": stored["system_fingerprint"],
    }
    assert await votes(server, stored["id"]) == [reply.json()]
    assert not [name for name in reply.headers if name.startswith("x-ratelimit")]


async def test_each_choice_has_one_vote_and_the_last_one_stands(server: FakeServer) -> None:
    id_ = (await completion(server, n=2))["id"]
    for choice, rating in ((0, "up"), (1, "up"), (0, "down"), (0, "down")):
        assert (await vote(server, id_, rating, choice=choice)).status_code == 200
    assert [(one["choice"], one["rating"]) for one in await votes(server, id_)] == [(0, "down"), (1, "up")]


async def test_a_vote_sent_again_with_its_key_stands_as_it_was(server: FakeServer) -> None:
    id_ = (await completion(server))["id"]
    first = await vote(server, id_, comment="first", idempotency_key="k1")
    again = await vote(server, id_, comment="second", idempotency_key="k1")
    assert again.json() == first.json()
    assert (await vote(server, id_, comment="third", idempotency_key="k2")).json()["comment"] == "third"


async def test_a_stored_response_can_be_rated(server: FakeServer) -> None:
    id_ = await response_id(server, store=True)
    given = (await vote(server, id_, reasons=None, comment=None, choice=None)).json()
    assert (given["model"], given["system_fingerprint"], given["reasons"]) == ("test", None, [])
    assert (await vote(server, id_, choice=1)).json()["error"]["code"] == "integer_above_max_value"


async def test_what_is_not_stored_cannot_be_rated_and_the_error_says_how(server: FakeServer) -> None:
    unstored = [
        (await completion(server, store=False))["id"],
        await response_id(server),
        await response_id(server, store=False),
        "chatcmpl-x",
        "resp_x",
        "cmpl-x",
        "..",
        "é" * 5000,
    ]
    for id_ in unstored:
        reply = await vote(server, id_)
        assert reply.status_code == 404, id_
        assert reply.json()["error"]["code"] == "not_found"
        assert reply.json()["error"]["message"].endswith(
            "Only stored replies can be rated: send 'store': true with the request that makes them."
        )


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_the_reply_of_another_key_does_not_exist(server: FakeServer, method: str) -> None:
    id_ = (await completion(server))["id"]
    before = (await vote(server, id_)).json()

    async def ask_as_bob(wanted: str) -> httpx2.Response:
        body = {"id": wanted, "rating": "down"} if method == "POST" else None
        url = ROUTE if method == "POST" else f"{ROUTE}/{wanted}"
        return await server.client.request(method, url, json=body, headers=BOB)

    foreign, unknown = await ask_as_bob(id_), await ask_as_bob("chatcmpl-unknown")
    assert foreign.status_code == unknown.status_code == 404
    assert foreign.text == unknown.text.replace("chatcmpl-unknown", id_)
    assert await votes(server, id_) == [before]


async def test_without_a_key_nobody_votes(server: FakeServer) -> None:
    id_ = (await completion(server))["id"]
    reply = await server.client.post(
        ROUTE, json={"id": id_, "rating": "up"}, headers={"authorization": "Bearer wrong"}
    )
    assert reply.status_code == 401


async def test_votes_are_deleted_and_the_reply_stays(server: FakeServer) -> None:
    id_ = (await completion(server))["id"]
    await vote(server, id_)
    for _ in range(2):
        deleted = await server.client.delete(f"{ROUTE}/{id_}")
        assert deleted.json() == {"id": id_, "object": "feedback.deleted", "deleted": True}
    assert await votes(server, id_) == []
    assert (await server.client.get(f"/v1/chat/completions/{id_}")).status_code == 200


async def test_votes_go_with_the_reply(server: FakeServer) -> None:
    stored = {
        "/v1/chat/completions": (await completion(server))["id"],
        "/v1/responses": await response_id(server, store=True),
    }
    for route, id_ in stored.items():
        await vote(server, id_)
        assert (await server.client.delete(f"{route}/{id_}")).status_code == 200
        assert (await server.client.get(f"{ROUTE}/{id_}")).status_code == 404


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"id": None}, "id", "invalid_type"),
        ({"id": "\0"}, "id", "invalid_value"),
        ({"rating": "sideways"}, "rating", "invalid_value"),
        ({"rating": 1}, "rating", "invalid_type"),
        ({"choice": -1}, "choice", "integer_below_min_value"),
        ({"choice": 1}, "choice", "integer_above_max_value"),
        ({"choice": 10**4000}, "choice", "integer_above_max_value"),
        ({"choice": "0"}, "choice", "invalid_type"),
        ({"reasons": "rude"}, "reasons", "invalid_type"),
        ({"reasons": ["x"] * 17}, "reasons", "array_above_max_length"),
        ({"reasons": ["x" * 65]}, "reasons[0]", "string_above_max_length"),
        ({"reasons": [""]}, "reasons[0]", "empty_string"),
        ({"reasons": ["a\0"]}, "reasons[0]", "invalid_value"),
        ({"comment": "x" * 4097}, "comment", "string_above_max_length"),
        ({"comment": "a\0"}, "comment", "invalid_value"),
        ({"idempotency_key": "k" * 129}, "idempotency_key", "string_above_max_length"),
        ({"idempotency_key": ""}, "idempotency_key", "empty_string"),
    ],
)
async def test_a_vote_that_is_wrong_is_refused_by_name(
    server: FakeServer, body: dict[str, Any], param: str, code: str
) -> None:
    id_ = (await completion(server))["id"]
    reply = await server.client.post(ROUTE, json={"id": id_, "rating": "up"} | body)
    assert reply.status_code == 400, reply.text
    assert (reply.json()["error"]["param"], reply.json()["error"]["code"]) == (param, code)
    assert await votes(server, id_) == []


@pytest.mark.parametrize("missing", ["id", "rating"])
async def test_id_and_rating_are_required(server: FakeServer, missing: str) -> None:
    body = {name: "up" for name in ("id", "rating") if name != missing}
    error = (await server.client.post(ROUTE, json=body)).json()["error"]
    assert (error["param"], error["code"]) == (missing, "missing_required_parameter")


async def test_the_largest_vote_is_kept_whole(server: FakeServer) -> None:
    id_ = (await completion(server))["id"]
    reasons, comment = ["\U0001f600" * 64] * 16, "\n" * 4096
    given = (await vote(server, id_, reasons=reasons, comment=comment, idempotency_key="k" * 128)).json()
    assert (given["reasons"], given["comment"]) == (reasons, comment)
