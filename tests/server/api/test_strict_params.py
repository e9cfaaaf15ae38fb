"""With `strict_params` an unknown parameter is an error on every route that else names what it ignored."""

from typing import Any

import pytest

from support.fake_server import HELLO, fake_server

BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "test", "messages": HELLO},
    "/v1/completions": {"model": "test", "prompt": "hello"},
    "/v1/responses": {"model": "test", "input": "hello", "store": False},
    "/v1/tokenize": {"model": "test", "prompt": "hello"},
    "/v1/detokenize": {"model": "test", "tokens": [5]},
    "/v1/apply-template": {"model": "test", "messages": HELLO},
}


@pytest.mark.parametrize("path", BODIES)
async def test_an_unknown_parameter_is_refused_by_name(path: str) -> None:
    async with fake_server(settings={"strict_params": True}) as server:
        reply = await server.client.post(path, json=BODIES[path] | {"guided_json": {}})
        assert not server.engine.requests
        assert (await server.client.post(path, json=BODIES[path])).status_code == 200
    assert reply.status_code == 400
    assert reply.json()["error"] == {
        "message": "Unknown parameter: 'guided_json'.",
        "type": "invalid_request_error",
        "param": "guided_json",
        "code": "unknown_parameter",
    }


@pytest.mark.parametrize("path", BODIES)
async def test_by_default_it_is_ignored_and_named(path: str) -> None:
    async with fake_server() as server:
        reply = await server.client.post(path, json=BODIES[path] | {"guided_json": {}, "a b\r\n": 1})
    assert reply.status_code == 200
    assert reply.headers["x-ignored-params"] == "guided_json"
