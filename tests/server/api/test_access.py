"""Keys on every route but two, and no foreign web pages on a loopback server."""

from pathlib import Path
from typing import Any

import pytest

from support.fake_server import HELLO, fake_server
from turnwise_server.auth import KeyRing, hash_key, new_key
from turnwise_server.errors import ConfigurationError

KEY = "tw-canary-0123456789abcdef"
RING = KeyRing([hash_key("another-key-of-somebody"), hash_key(KEY, "ada")])


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Basic {KEY}",
        KEY,
        f"Bearer {KEY}x",
        f"Bearer {KEY[:-1]}",
    ],
)
async def test_a_missing_or_wrong_key_is_refused_and_never_repeated(authorization: str | None) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    async with fake_server(keys=RING, headers=headers) as server:
        reply = await server.chat()
    error = reply.json()["error"]
    assert (reply.status_code, error["type"], error["code"]) == (
        401,
        "invalid_request_error",
        "invalid_api_key",
    )
    assert error["param"] is None
    assert reply.headers["www-authenticate"] == "Bearer"
    assert reply.headers["x-request-id"]
    assert "wrong" not in reply.text
    assert KEY[:-1] not in reply.text


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_a_known_key_opens_every_route(scheme: str) -> None:
    async with fake_server(keys=RING, headers={"authorization": f"{scheme} {KEY}"}) as server:
        assert (await server.chat()).status_code == 200
        assert (await server.client.get("/v1/models")).status_code == 200
        assert (await server.client.get("/nope")).status_code == 404


async def test_only_the_key_id_is_logged_and_separates_tenants(log_lines: list[dict[str, Any]]) -> None:
    async with fake_server(keys=RING, headers={"authorization": f"Bearer {KEY}"}) as server:
        await server.chat()
        tenant = server.engine.requests[0].tenant
    assert tenant == hash_key(KEY).key_id
    assert log_lines[-1]["key_id"] == tenant
    assert KEY not in str(log_lines)


async def test_preflight_requests_need_no_key() -> None:
    async with fake_server(keys=RING) as server:
        reply = await server.client.options("/v1/chat/completions")
    assert reply.status_code == 405
    assert "access-control-allow-origin" not in reply.headers


async def test_without_keys_any_key_is_welcome() -> None:
    async with fake_server(headers={"authorization": "Bearer whatever"}) as server:
        assert (await server.chat()).status_code == 200
        assert server.engine.requests[0].tenant == ""


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("127.0.0.1:8000", True),
        ("localhost:8000", True),
        ("LOCALHOST", True),
        ("app.localhost", True),
        ("[::1]:8000", True),
        ("127.1.2.3", True),
        ("chat.example.org", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example:8000", False),
        ("10.0.0.1", False),
        ("[::1", False),
    ],
)
async def test_a_loopback_server_answers_to_its_own_names_only(host: str, is_ours: bool) -> None:
    async with fake_server(settings={"allowed_hosts": "chat.example.org"}) as server:
        reply = await server.client.get("/v1/models", headers={"host": host})
    assert reply.status_code == (200 if is_ours else 403)
    if not is_ours:
        assert reply.json()["error"]["code"] == "invalid_host"
        assert "--allowed-hosts" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("origin", "is_ours"),
    [
        ("http://127.0.0.1:8000", True),
        ("http://localhost:5173", True),
        ("vscode-webview://x", True),
        ("https://evil.example", False),
        ("null", False),
    ],
)
async def test_web_pages_of_others_cannot_post_to_a_loopback_server(origin: str, is_ours: bool) -> None:
    async with fake_server() as server:
        reply = await server.client.post(
            "/v1/chat/completions", json={"model": "test", "messages": HELLO}, headers={"origin": origin}
        )
        assert bool(server.engine.requests) is is_ours
    assert reply.status_code == (200 if is_ours else 403)
    assert is_ours or reply.json()["error"]["code"] == "invalid_origin"
    assert is_ours or "--cors-allowed-origins" in reply.json()["error"]["message"]


async def test_a_server_for_others_answers_to_any_name() -> None:
    async with fake_server(settings={"host": "0.0.0.0"}, keys=RING) as server:
        reply = await server.client.get(
            "/v1/models", headers={"host": "chat.example.org", "authorization": f"Bearer {KEY}"}
        )
    assert reply.status_code == 200


def test_a_key_file_holds_hashes_names_and_comments(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text(f"# ours\n\n{hash_key(KEY, 'ada lovelace').line()}\n{hash_key('second').line()}\n")
    ring = KeyRing.load(file, ["from-the-environment"])
    record = ring.find(KEY)
    assert record is not None
    assert record.name == "ada lovelace"
    assert ring.find("second")
    assert ring.find("from-the-environment")
    assert ring.find("unknown") is None


def test_a_key_pasted_into_the_key_file_is_refused_and_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text(f"{hash_key(KEY).line()}\n{KEY}\n")
    with pytest.raises(ConfigurationError, match="line 2") as refused:
        KeyRing.load(file)
    assert KEY not in str(refused.value)
    assert "hash-key" in str(refused.value)


@pytest.mark.parametrize("content", [None, b"", b"# nothing\n", b"\xff\xfe"])
def test_a_key_file_without_keys_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "keys.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"keys\.txt"):
        KeyRing.load(file)


def test_new_keys_are_long_and_differ() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert min(map(len, keys)) > 40
