"""Web pages of listed origins read every reply; those of others read none. Off unless origins are listed."""

import re
from pathlib import Path
from typing import Any

import httpx2
import pytest

from support.fake_server import HELLO, FakeServer, fake_server
from turnwise_server.api.gates.cors import EXPOSED_HEADERS
from turnwise_server.auth import KeyRing, hash_key

PAGE = "https://chat.example"
OTHER = "https://evil.example"
KEY = "tw-canary-0123456789abcdef"
RING = KeyRing([hash_key(KEY, "ada")])
CORS: dict[str, Any] = {"cors_allowed_origins": (PAGE, "http://10.0.0.7:5173")}
SDK_HEADERS = (
    "authorization, content-type, x-api-key, anthropic-version, anthropic-dangerous-direct-browser-access, "
    "openai-organization, x-stainless-arch, x-stainless-retry-count, x-stainless-runtime-version"
)


async def preflight(
    server: FakeServer, origin: str = PAGE, *, path: str = "/v1/chat/completions", **headers: str
) -> httpx2.Response:
    asked = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": SDK_HEADERS,
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    return await server.client.options(path, headers=asked)


def cors_headers(reply: httpx2.Response) -> set[str]:
    return {name for name in reply.headers if name.startswith("access-control-")}


async def test_a_preflight_reply_names_methods_headers_and_how_long_it_holds() -> None:
    async with fake_server(settings=CORS) as server:
        reply = await preflight(server)
    assert reply.content == b""
    assert reply.headers["access-control-allow-methods"] == "DELETE, GET, POST"
    assert reply.headers["access-control-allow-headers"] == SDK_HEADERS
    assert reply.headers["access-control-max-age"] == "7200"
    varying = {name.strip().lower() for name in reply.headers["vary"].split(",")}
    assert {"origin", "access-control-request-headers"} <= varying
    assert "access-control-allow-private-network" not in reply.headers


async def test_every_method_of_every_route_is_allowed() -> None:
    async with fake_server(settings=CORS) as server:
        paths = (await server.client.get("/openapi.json")).json()["paths"]
        allowed = (await preflight(server)).headers["access-control-allow-methods"].split(", ")
    assert {method.upper() for operations in paths.values() for method in operations} <= set(allowed)


async def test_a_page_may_reach_from_the_internet_into_the_private_network_if_listed() -> None:
    async with fake_server(settings=CORS) as server:
        asked = {"access_control_request_private_network": "true"}
        reply = await preflight(server, **asked)
        assert reply.headers["access-control-allow-private-network"] == "true"
        assert cors_headers(await preflight(server, OTHER, **asked)) == set()


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        ("X-Stainless-OS,Content-Type", "x-stainless-os, content-type"),
        ("content-type, bad header, *, x:y, \x7f", "content-type"),
        ("", ""),
        (",".join(f"x-{number}" for number in range(100)), ", ".join(f"x-{number}" for number in range(64))),
        ("x" * 65, ""),
    ],
)
async def test_only_well_formed_header_names_are_repeated(asked: str, allowed: str) -> None:
    async with fake_server(settings=CORS) as server:
        reply = await preflight(server, access_control_request_headers=asked)
    assert reply.headers["access-control-allow-headers"] == allowed


@pytest.mark.parametrize(
    ("path", "status"),
    [("/v1/models", 200), ("/nope", 404), ("/v1/completions", 405), ("/health", 200)],
)
async def test_a_listed_page_reads_replies_and_errors(path: str, status: int) -> None:
    async with fake_server(settings=CORS) as server:
        reply = await server.client.get(path, headers={"origin": PAGE})
    assert reply.status_code == status
    assert reply.headers["access-control-allow-origin"] == PAGE
    assert reply.headers["access-control-expose-headers"] == ", ".join(EXPOSED_HEADERS)
    assert reply.headers["vary"] == "Origin"


async def test_a_listed_page_reads_why_its_key_body_or_host_was_refused() -> None:
    async with fake_server(settings=CORS | {"max_body_bytes": 1024}, keys=RING) as server:
        page = {"origin": PAGE}
        missing = await server.client.get("/v1/models", headers=page)
        large = await server.client.post("/v1/chat/completions", content=b" " * 2000, headers=page)
        rebound = await server.client.get("/v1/models", headers=page | {"host": "evil.example"})
    assert (missing.status_code, large.status_code, rebound.status_code) == (401, 413, 403)
    for reply in (missing, large, rebound):
        assert reply.headers["access-control-allow-origin"] == PAGE


async def test_a_listed_page_reads_a_fault_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fake_server(settings=CORS) as server:
        monkeypatch.setattr("turnwise_server.api.health.json_response", lambda *_args, **_named: 1 / 0)
        reply = await server.client.get("/health", headers={"origin": PAGE})
    assert reply.status_code == 500
    assert reply.headers["access-control-allow-origin"] == PAGE
    assert reply.headers["x-request-id"]


async def test_a_listed_page_reads_a_stream() -> None:
    async with fake_server(settings=CORS) as server:
        body = {"model": "test", "messages": HELLO, "stream": True}
        reply = await server.client.post("/v1/chat/completions", json=body, headers={"origin": PAGE})
    assert reply.headers["access-control-allow-origin"] == PAGE
    assert reply.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    "origin",
    [f"{PAGE}:8443", "http://chat.example", f"{PAGE}.evil.example", f"{PAGE}/", "HTTPS://CHAT.EXAMPLE"],
)
async def test_an_origin_must_match_exactly(origin: str) -> None:
    async with fake_server(settings=CORS | {"host": "0.0.0.0"}) as server:
        reply = await server.client.get("/v1/models", headers={"origin": origin})
        assert cors_headers(await preflight(server, origin)) == cors_headers(reply) == set()


async def test_replies_to_nobody_in_particular_differ_by_origin() -> None:
    async with fake_server(settings=CORS) as server:
        reply = await server.client.get("/v1/models")
    assert (reply.headers["vary"], cors_headers(reply)) == ("Origin", set())


async def test_preflights_leave_no_line_in_the_log(log_lines: list[dict[str, Any]]) -> None:
    async with fake_server(settings=CORS) as server:
        await preflight(server)
    assert log_lines == []


def test_every_header_of_ours_that_is_documented_can_be_read_by_a_page() -> None:
    text = (Path(__file__).parents[3] / "docs/http-api.md").read_text(encoding="utf-8")
    sent = set(re.findall(r"(?<![\w-])x-[a-z-]*[a-z](?![\w*{-])", text)) - {"x-api-key"}
    assert {"x-request-id", "x-context-truncated"} <= sent
    assert sent <= set(EXPOSED_HEADERS)
