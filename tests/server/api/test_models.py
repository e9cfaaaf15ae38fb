"""Several models by name, and checkpoints that are swapped in while requests run."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from support.fake_model import write_fake_model, write_script
from support.fake_server import HELLO, FakeServer, fake_server
from turnwise_server.auth import KeyRing, hash_key
from turnwise_server.engine.fake_engine import FakeEngine

LONG = "the quick brown fox " * 20
ADMIN, USER = "an-admin-key-0123456789", "a-user-key-0123456789"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A model that says "new"."""
    directory = write_fake_model(tmp_path / "next")
    write_script(directory / "script.json", "new")
    return directory


@asynccontextmanager
async def serving(checkpoint: Path, *replies: str, **options: Any) -> AsyncIterator[FakeServer]:
    """Serve `replies`; what is loaded later plays the checkpoint's script."""
    settings = {"engine": "fake", "fake_script": checkpoint / "script.json"} | options.pop("settings", {})
    async with fake_server(*replies, settings=settings, **options) as server:
        yield server


def text_of(reply: httpx2.Response) -> str:
    content: str = reply.json()["choices"][0]["message"]["content"]
    return content


async def load(server: FakeServer, path: Path, **body: Any) -> httpx2.Response:
    return await server.client.post("/admin/models", json={"path": str(path)} | body)


async def test_a_loaded_checkpoint_replaces_the_default_model(checkpoint: Path) -> None:
    async with serving(checkpoint, "old") as server:
        before = await server.chat()
        loaded = await load(server, checkpoint)
        after = await server.chat()
    assert (text_of(before), text_of(after)) == ("old", "new")
    assert loaded.status_code == 200
    assert loaded.json()["id"] == "test"
    assert loaded.json()["path"] == str(checkpoint)
    assert loaded.json()["system_fingerprint"] == after.json()["system_fingerprint"]


async def test_a_reply_is_finished_by_the_model_that_began_it(checkpoint: Path) -> None:
    async with serving(checkpoint, LONG, token_delay_s=0.01) as server:
        old = server.engine
        running = asyncio.create_task(server.chat())
        while not old.running:  # noqa: ASYNC110 - the fake engine has no event for it
            await asyncio.sleep(0.005)
        assert (await load(server, checkpoint)).status_code == 200
        assert not running.done()
        assert text_of(await server.chat()) == "new"
        assert text_of(await running) == LONG
        async with asyncio.timeout(2):
            while old.stats().is_alive:  # noqa: ASYNC110 - closed by a task of the server's own
                await asyncio.sleep(0.005)


async def test_the_old_model_stays_until_its_last_user_has_gone(checkpoint: Path) -> None:
    async with serving(checkpoint, "old") as server:
        old = server.services.models.default
        with server.services.models.held("test"):
            await load(server, checkpoint)
            await asyncio.sleep(0.05)
            assert old.engine.stats().is_alive
        await asyncio.sleep(0.05)
        assert not old.engine.stats().is_alive


async def test_a_checkpoint_that_cannot_be_loaded_leaves_the_old_one_serving(tmp_path: Path) -> None:
    write_script(tmp_path / "script.json", "new")
    async with serving(tmp_path, "old") as server:
        failed = await load(server, tmp_path / "nowhere")
        listed = (await server.client.get("/admin/models")).json()["data"]
        assert text_of(await server.chat()) == "old"
    assert failed.status_code == 400
    error = failed.json()["error"]
    assert (error["code"], error["param"]) == ("model_not_loaded", "path")
    assert "tokenizer.json" in error["message"]
    assert [model["id"] for model in listed] == ["test"]


async def test_a_path_that_no_file_system_takes_is_an_error_like_any_other(checkpoint: Path) -> None:
    async with serving(checkpoint, "old") as server:
        failed = await load(server, Path("0" * 4096))
    assert (failed.status_code, failed.json()["error"]["code"]) == (400, "model_not_loaded")
    assert len(failed.text) < 1000


async def test_a_new_name_adds_a_model_and_delete_takes_it_out(checkpoint: Path) -> None:
    async with serving(checkpoint, "old") as server:
        assert (await load(server, checkpoint, model="org/next")).status_code == 200
        assert text_of(await server.chat(model="org/next")) == "new"
        assert text_of(await server.chat()) == "old"
        listed = (await server.client.get("/v1/models")).json()["data"]
        gone = await server.client.delete("/admin/models/org/next")
        assert (await server.chat(model="org/next")).status_code == 404
    assert [model["id"] for model in listed] == ["test", "org/next"]
    assert gone.json() == {"id": "org/next", "object": "admin.model.deleted", "deleted": True}


async def test_the_default_model_cannot_be_removed(checkpoint: Path) -> None:
    async with serving(checkpoint, "old") as server:
        refused = await server.client.delete("/admin/models/test")
        unknown = await server.client.delete("/admin/models/other")
        assert text_of(await server.chat()) == "old"
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "default_model_needed")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


async def test_one_name_takes_one_checkpoint_at_a_time(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_start, start = asyncio.Event(), FakeEngine.start

    async def slow_start(engine: FakeEngine) -> object:
        await may_start.wait()
        return await start(engine)

    async with serving(checkpoint, "old") as server:
        monkeypatch.setattr(FakeEngine, "start", slow_start)
        first = asyncio.create_task(load(server, checkpoint))
        await asyncio.sleep(0.05)
        second = await load(server, checkpoint)
        assert text_of(await server.chat()) == "old"
        may_start.set()
        assert (await first).status_code == 200
        assert text_of(await server.chat()) == "new"
    assert (second.status_code, second.json()["error"]["code"]) == (409, "model_is_loading")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "missing_required_parameter"),
        ({"path": 1}, "invalid_type"),
        ({"path": ""}, "empty_string"),
        ({"path": "a\0b"}, "invalid_value"),
        ({"path": "x", "model": ""}, "empty_string"),
    ],
)
async def test_bad_requests_to_load_are_refused_by_name(body: dict[str, object], code: str) -> None:
    async with fake_server() as server:
        refused = await server.client.post("/admin/models", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, code)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/admin/models"), ("POST", "/admin/models"), ("DELETE", "/admin/models/test")],
)
async def test_models_are_managed_with_the_admin_scope_only(method: str, path: str) -> None:
    keys = KeyRing([hash_key(ADMIN, "scope=admin"), hash_key(USER)])
    async with fake_server(keys=keys) as server:
        statuses = {
            key: (
                await server.client.request(method, path, headers={"authorization": f"Bearer {key}"})
            ).status_code
            for key in (ADMIN, USER, "an-unknown-key-0123456789")
        }
    assert statuses[ADMIN] not in (401, 403)
    assert (statuses[USER], statuses["an-unknown-key-0123456789"]) == (403, 401)


async def test_a_request_that_names_no_model_is_told_so() -> None:
    async with fake_server() as server:
        refused = await server.client.post("/v1/chat/completions", json={"messages": HELLO})
    error = refused.json()["error"]
    assert refused.status_code == 400
    assert (error["code"], error["param"]) == ("missing_required_parameter", "model")


async def test_a_server_may_choose_its_default_model_for_requests_that_name_none() -> None:
    async with fake_server("Hi!", settings={"allow_default_model": True}) as server:
        reply = await server.client.post("/v1/chat/completions", json={"messages": HELLO})
    assert reply.json()["model"] == "test"
    assert text_of(reply) == "Hi!"
