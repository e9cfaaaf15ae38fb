"""What a key may do: its line in the key file, its scope, the headers it comes in."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.requests import Request
from typer.testing import CliRunner

from support.fake_server import fake_server
from turnwise_server import cli
from turnwise_server.api.gates.access import require_scope
from turnwise_server.api.respond import json_response
from turnwise_server.api.telemetry.request_log import record_of
from turnwise_server.app import create_app
from turnwise_server.auth import KeyRing, hash_key
from turnwise_server.errors import ConfigurationError
from turnwise_server.limits.rates import RateLimits

KEY = "tw-canary-0123456789abcdef"
ADMIN_KEY = "tw-admin-0123456789abcdef"
RING = KeyRing([hash_key(KEY, "ada rpm=60"), hash_key(ADMIN_KEY, "root scope=admin")])
DIGEST = "ab" * 32


def read(tmp_path: Path, words: str) -> Any:
    file = tmp_path / "keys.txt"
    file.write_text(f"# keys\n{hash_key(KEY).line()} {words}\n")
    return KeyRing.load(file).find(KEY)


def test_a_line_carries_scope_and_limits_behind_the_name(tmp_path: Path) -> None:
    record = read(tmp_path, "ada lovelace scope=admin rpm=60 tpm=10000 concurrent=4")
    assert (record.name, record.scopes) == ("ada lovelace", {"admin"})
    assert record.limits == RateLimits(rpm=60, tpm=10_000, concurrent=4)
    assert read(tmp_path, record.line().partition(" ")[2]) == record


@pytest.mark.parametrize("words", ["", "ada", "ada lovelace", "  ada  "])
def test_a_line_without_words_has_no_scope_and_no_limits(tmp_path: Path, words: str) -> None:
    record = read(tmp_path, words)
    assert (record.name, record.scopes, bool(record.limits)) == (" ".join(words.split()), frozenset(), False)


@pytest.mark.parametrize(
    "words",
    [
        "ada rmp=60",
        "ada rpm=60 rpm=70",
        "ada rpm=",
        "ada rpm=0",
        "ada rpm=-1",
        "ada rpm=1.5",
        "ada rpm=\N{ARABIC-INDIC DIGIT ONE}",
        "ada tpm=99999999999999999999",
        "ada concurrent=many",
        "ada scope=root",
        "ada scope=",
        "ada scope=admin,",
        "a=b",
        "=",
    ],
)
def test_a_word_that_makes_no_sense_names_the_line_and_shows_nothing_of_it(
    tmp_path: Path, words: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"^line 2 of the key file .*keys\.txt' has a") as refused:
        read(tmp_path, f"secret-name {words}")
    shown = str(refused.value)
    assert "secret-name" not in shown
    assert hash_key(KEY).digest not in shown


def test_limits_of_a_key_go_before_those_of_the_server() -> None:
    defaults = RateLimits(rpm=10, concurrent=2)
    assert RateLimits(rpm=60, tpm=5).over(defaults) == RateLimits(rpm=60, tpm=5, concurrent=2)
    assert RateLimits().over(defaults) == defaults


def test_hash_key_writes_scope_and_limits() -> None:
    flags = ["--name", "ada", "--scope", "admin", "--rpm", "60", "--tpm", "10000", "--concurrent", "4"]
    shown = CliRunner().invoke(cli.app, ["hash-key", *flags], input=f"{KEY}\n")
    assert shown.stdout == f"{hash_key(KEY).line()} ada scope=admin rpm=60 tpm=10000 concurrent=4\n"


@pytest.mark.parametrize("flags", [("--scope", "root"), ("--rpm", "0"), ("--name", "a=b"), ("--scope", "")])
def test_hash_key_writes_no_line_that_could_not_be_read(flags: tuple[str, str]) -> None:
    refused = CliRunner().invoke(cli.app, ["hash-key", *flags], input=f"{KEY}\n")
    assert isinstance(refused.exception, ConfigurationError)
    assert not refused.stdout


@asynccontextmanager
async def guarded(keys: KeyRing, **settings: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """An application with one more route, for admins."""
    async with fake_server(settings=settings) as server:
        app = create_app(server.services, keys)

        async def probe(request: Request) -> Any:
            require_scope(request, "admin")
            key = record_of(request.scope).key
            return json_response({"name": key.name if key else None})

        app.add_api_route("/admin/probe", probe, methods=["POST"])
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield client


async def test_a_key_without_the_scope_is_refused_and_one_with_it_is_not() -> None:
    async with guarded(RING) as client:
        refused = await client.post("/admin/probe", headers={"authorization": f"Bearer {KEY}"})
        let_in = await client.post("/admin/probe", headers={"authorization": f"Bearer {ADMIN_KEY}"})
        assert (await client.post("/admin/probe")).status_code == 401
        other = await client.get("/v1/models", headers={"authorization": f"Bearer {ADMIN_KEY}"})
    error = refused.json()["error"]
    assert (refused.status_code, error["type"], error["code"], error["param"]) == (
        403,
        "permission_error",
        "insufficient_scope",
        None,
    )
    assert let_in.json() == {"name": "root"}
    assert other.status_code == 200


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1", 200), ("0.0.0.0", 403)])
async def test_without_keys_only_a_server_on_loopback_has_admins(host: str, status: int) -> None:
    async with guarded(KeyRing(), host=host, insecure=True) as client:
        assert (await client.post("/admin/probe")).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x-api-key": KEY}, 200),
        ({"x-api-key": f" {KEY} "}, 200),
        ({"x-api-key": KEY, "authorization": "Bearer placeholder"}, 200),
        ({"x-api-key": "placeholder", "authorization": f"Bearer {KEY}"}, 200),
        ({"x-api-key": f"{KEY}x"}, 401),
        ({"x-api-key": f"Bearer {KEY}"}, 401),
        ({"x-api-key": ""}, 401),
        ({}, 401),
    ],
)
async def test_a_key_may_come_as_clients_of_anthropic_send_it(headers: dict[str, str], status: int) -> None:
    async with fake_server(keys=RING, headers=headers) as server:
        reply = await server.client.get("/v1/models")
    assert reply.status_code == status
    assert KEY not in reply.text
    if status == 401:
        is_missing = not headers.get("x-api-key")
        assert reply.json()["error"]["message"].startswith("No API key" if is_missing else "Incorrect API")
