"""Promises about access: keys on every route, keys and content nowhere else, and no web page that is not listed."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from support.fake_server import FakeServer, fake_server
from support.generating_routes import ROUTES
from turnwise_server import cli
from turnwise_server.auth import KeyRing, hash_key
from turnwise_server.config import SECRET_FIELDS, Settings, flag_name

KEY = "tw-canary-0123456789abcdef"
RING = KeyRing([hash_key("another-key-of-somebody"), hash_key(KEY, "ada")])
PAGE = "https://chat.example"
OTHER = "https://evil.example"
OPEN = {"/health", "/ready"}


async def routes_of(server: FakeServer) -> list[tuple[str, str]]:
    """Every method and path of the document, with something in place of its parameters."""
    document = (await server.client.get("/openapi.json", headers={"authorization": f"Bearer {KEY}"})).json()
    return [
        (method.upper(), path.replace("{", "").replace("}", ""))
        for path, operations in document["paths"].items()
        for method in operations
    ]


def spellings(path: str) -> Iterator[str]:
    """Ways to write an address that a check might miss."""
    yield from (
        path,
        f"{path}/",
        f"/{path}",
        f"{path}?key=x",
        f"/health//{path}",
        f"{path};/health",
        f"{path}%2f",
    )
    yield path.replace("/v1", "/V1")


async def test_promise_10_every_route_but_the_probes_needs_a_key() -> None:
    """What is not listed is closed: also addresses that do not exist, and odd spellings of those that do."""
    async with fake_server(keys=RING) as server:
        routes = await routes_of(server)
        assert {"/metrics", "/openapi.json", "/v1/messages", "/v1/tokenize", "/admin/models"} <= {
            path for _, path in routes
        }
        for method, path in [
            *routes,
            ("GET", "/"),
            ("GET", "/docs"),
            ("POST", "/nope"),
            ("PUT", "/v1/models"),
        ]:
            for spelling in spellings(path):
                status = (await server.client.request(method, spelling)).status_code
                is_open = spelling.partition("?")[0] in OPEN
                assert status == (200 if is_open else 401), (method, spelling)
            for wrong in ("Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x", "Bearer \xff"):
                headers = {b"authorization": wrong.encode("latin-1")}
                refused = await server.client.request(method, path, headers=headers)
                assert refused.status_code == (200 if path in OPEN else 401)
            reply = await server.client.request(method, path, headers={"authorization": f"Bearer {KEY}"})
            assert reply.status_code != 401
        assert not server.engine.requests


async def test_promise_11_keys_and_content_are_in_no_log_no_metric_no_error_and_no_argument(
    log_lines: list[dict[str, Any]],
) -> None:
    """Only the beginning of a key's hash stands for it. Keys come by file or environment, never as arguments."""
    authorization = {"authorization": f"Bearer {KEY}"}
    async with fake_server("a canary reply", keys=RING, headers=authorization) as server:
        for route in ROUTES.values():
            prompt = json.loads(json.dumps(route.prompt).replace("hello", "canary"))
            assert (await route.whole(server, **prompt)).text == "a canary reply"
            assert (await route.streamed(server, **prompt))[0].text == "a canary reply"
            for wrong in (
                {"temperature": "canary"},
                {route.limit: "canary"},
                {"metadata": {"a": ["canary"]}},
            ):
                refused = await server.client.post(route.path, json=route.body(**wrong))
                assert refused.status_code == 200 or "canary" not in refused.text
            headers = {"authorization": f"Bearer {KEY}x"}
            refused = await server.client.post(route.path, json=route.body(), headers=headers)
            assert (refused.status_code, "canary" in refused.text) == (401, False)
        await server.chat(messages=[{"role": "user", "content": "canary " * 3000}])
        await server.chat(user="canary", tools=[{"type": "function", "function": {"name": "canary"}}])
        for path in ("/v1/models?key=canary", "/canary/canary", "/v1/responses/canary", "/v1/models/canary"):
            await server.client.get(path)
        await server.client.post("/v1/tokenize", json={"model": "test", "prompt": "canary"})
        metrics = (await server.client.get("/metrics")).text
    digest, key_id = hash_key(KEY).digest, hash_key(KEY).key_id
    assert digest.startswith(key_id)
    assert len(key_id) == 12
    for text in (metrics, str(log_lines)):
        assert "canary" not in text
        assert digest not in text
    assert key_id in str(log_lines)
    assert key_id not in metrics
    help_text = CliRunner().invoke(cli.app, ["--help"], terminal_width=200).stdout
    assert {"api_keys", "database_url", "redis_url"} <= SECRET_FIELDS
    assert "--api-keys-file " in help_text
    assert not any(f"{flag_name(field)} " in help_text for field in SECRET_FIELDS)
    assert KEY not in repr(Settings.model_validate({"api_keys": KEY}))


async def preflight(server: FakeServer, origin: str, path: str) -> httpx2.Response:
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type",
    }
    return await server.client.options(path, headers=headers)


def cors_headers(reply: httpx2.Response) -> set[str]:
    return {name for name in reply.headers if name.startswith("access-control-")}


@pytest.mark.parametrize("path", [route.path for route in ROUTES.values()])
async def test_promise_12_a_preflight_needs_no_key_and_nothing_is_allowed_that_is_not_listed(
    path: str,
) -> None:
    """Off by default; listed origins exactly, without credentials; loopback servers know foreign hosts and pages."""
    async with fake_server(keys=RING) as server:
        reply = await preflight(server, PAGE, path)
        assert cors_headers(reply) == set()
        assert reply.status_code != 401
        reply = await server.client.get("/v1/models", headers={"origin": PAGE})
        assert (reply.status_code, reply.json()["error"]["code"]) == (403, "invalid_origin")
    async with fake_server(keys=RING, settings={"cors_allowed_origins": (PAGE,)}) as server:
        reply = await preflight(server, PAGE, path)
        assert reply.status_code == 204
        assert reply.headers["access-control-allow-origin"] == PAGE
        assert "access-control-allow-credentials" not in reply.headers
        for origin in (OTHER, "null", f"{PAGE}.evil.example", f"{PAGE}:8443", "http://chat.example"):
            assert cors_headers(await preflight(server, origin, path)) == set()
        foreign = {"origin": OTHER, "authorization": f"Bearer {KEY}"}
        reply = await server.client.get("/v1/models", headers=foreign)
        assert (reply.status_code, cors_headers(reply)) == (403, set())
        rebound = {"origin": PAGE, "host": "evil.example", "authorization": f"Bearer {KEY}"}
        reply = await server.client.get("/v1/models", headers=rebound)
        assert (reply.status_code, reply.json()["error"]["code"]) == (403, "invalid_host")
    with pytest.raises(ValueError, match="cors"):
        Settings.model_validate({"cors_allowed_origins": "*"})
