"""The life of a server: signals, drains, lost engines, taken ports. In this process, on real sockets."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from support.fake_model import write_fake_model, write_script
from support.fake_server import HELLO
from turnwise_server import load
from turnwise_server import serve as serving
from turnwise_server.auth import KeyRing
from turnwise_server.config import Settings
from turnwise_server.engine.fake_engine import FakeEngine
from turnwise_server.errors import CheckpointError, ConfigurationError
from turnwise_server.listen import bind, url_of

START_LIMIT_S = 120
EXIT_LIMIT_S = 20
"""Far below the drain timeout of 30 s, and long enough for a busy machine."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = write_fake_model(tmp_path_factory.mktemp("model"))
    write_script(directory / "script.json", "the quick brown fox " * 30, token_delay_ms=20)
    return directory


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[FakeEngine]:
    """The engines that were made."""
    made: list[FakeEngine] = []
    make_engine = load.make_engine

    def remembering(settings: Settings, model: str) -> FakeEngine:
        engine = make_engine(settings, model)
        assert isinstance(engine, FakeEngine)
        made.append(engine)
        return engine

    monkeypatch.setattr(load, "make_engine", remembering)
    return made


@pytest.fixture(autouse=True)
def restored_signals() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


class Running:
    """A server that runs in this loop."""

    def __init__(self, task: asyncio.Task[int], client: httpx2.AsyncClient) -> None:
        self.task = task
        self.client = client

    @asynccontextmanager
    async def stream(self) -> AsyncIterator[AsyncIterator[str]]:
        """The lines of a long reply that has begun."""
        body = {"model": "test", "messages": HELLO, "stream": True}
        async with self.client.stream("POST", "/v1/chat/completions", json=body) as reply:
            lines = reply.aiter_lines()
            assert (await anext(lines)).startswith("data: ")
            yield lines

    async def refuses(self) -> None:
        """Wait until /ready fails."""
        while await self.status() == 200:  # noqa: ASYNC110 - only /ready can tell
            await asyncio.sleep(0.01)

    async def status(self, path: str = "/ready") -> int:
        """The status of a path; 0 when nobody listens."""
        try:
            return int((await self.client.get(path)).status_code)
        except httpx2.TransportError:
            return 0


@asynccontextmanager
async def running(model: Path, **settings: Any) -> AsyncIterator[Running]:
    listener = bind("127.0.0.1", 0)
    chosen = Settings(
        model=str(model), model_name="test", engine="fake", fake_script=model / "script.json", **settings
    )
    async with httpx2.AsyncClient(base_url=url_of(listener), timeout=20) as client:
        server = Running(asyncio.create_task(serving.serve(chosen, KeyRing(), listener)), client)
        async with asyncio.timeout(START_LIMIT_S):
            while await server.status() != 200:
                assert not server.task.done()
                await asyncio.sleep(0.02)
        yield server
        if not server.task.done():
            os.kill(os.getpid(), signal.SIGTERM)
            await server.task


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_idle_server_exits_with_0_on_a_signal(
    model: Path, number: int, engines: list[FakeEngine]
) -> None:
    async with running(model) as server:
        os.kill(os.getpid(), number)
        async with asyncio.timeout(EXIT_LIMIT_S):
            assert await server.task == 0
        assert not engines[0].stats().is_alive
        assert await server.status() == 0


async def test_a_running_reply_ends_before_the_server_does(model: Path) -> None:
    async with running(model) as server, server.stream() as lines:
        os.kill(os.getpid(), signal.SIGTERM)
        await server.refuses()
        assert await server.status() == 503
        assert await server.status("/health") == 200
        assert "data: [DONE]" in [line async for line in lines]
        assert await server.task == 0


async def test_what_outlasts_the_drain_ends_with_an_error(model: Path, engines: list[FakeEngine]) -> None:
    async with running(model, drain_timeout_s=0.2) as server, server.stream() as lines:
        os.kill(os.getpid(), signal.SIGTERM)
        rest = [line async for line in lines if line]
        assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "shutting_down"
        assert "data: [DONE]" not in rest
        assert await server.task == 0
        assert engines[0].running == 0


async def test_a_second_signal_ends_the_server_at_once(model: Path, engines: list[FakeEngine]) -> None:
    async with running(model) as server, server.stream():
        os.kill(os.getpid(), signal.SIGINT)
        await server.refuses()
        os.kill(os.getpid(), signal.SIGINT)
        async with asyncio.timeout(EXIT_LIMIT_S):
            assert await server.task == 0
        assert not engines[0].stats().is_alive


async def test_a_server_whose_engine_stays_dead_fails(
    model: Path, engines: list[FakeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "ENGINE_RESTART_LIMIT_S", 0.2)
    monkeypatch.setattr(serving, "ENGINE_RESTART_LOADS", 0)
    async with running(model) as server:
        engines[0].die()
        assert await server.status() == 503
        async with asyncio.timeout(EXIT_LIMIT_S):
            assert await server.task == serving.EXIT_ENGINE_LOST


async def test_a_signal_while_loading_stops_the_loading(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loading = asyncio.Event()

    async def forever(_engine: FakeEngine) -> None:
        loading.set()
        await asyncio.sleep(60)

    monkeypatch.setattr(FakeEngine, "start", forever)
    settings = Settings(model=str(model), engine="fake")
    task = asyncio.create_task(serving.serve(settings, KeyRing(), bind("127.0.0.1", 0)))
    await loading.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(EXIT_LIMIT_S):
        assert await task == 0


async def test_a_model_that_cannot_be_loaded_is_an_error_and_the_engine_is_closed(
    tmp_path: Path, engines: list[FakeEngine]
) -> None:
    model = write_fake_model(tmp_path)
    (model / "chat_template.jinja").unlink()
    with pytest.raises(CheckpointError, match="chat_template"):
        await serving.serve(Settings(model=str(model), engine="fake"), KeyRing(), bind("127.0.0.1", 0))
    assert not engines[0].stats().is_alive


def test_a_taken_port_is_named_with_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port} of 127.0.0.1 is in use: .*--port"):
            bind("127.0.0.1", port)


async def test_a_port_taken_while_loading_is_named_too(model: Path) -> None:
    listener = bind("127.0.0.1", 0)
    rival = bind("127.0.0.1", listener.getsockname()[1])
    with rival:
        rival.listen()
        with pytest.raises(ConfigurationError, match=r"cannot listen|is in use"):
            await serving.serve(Settings(model=str(model), engine="fake"), KeyRing(), listener)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.7"])
def test_an_address_that_is_not_ours_is_named(host: str) -> None:
    with pytest.raises(ConfigurationError, match=f"cannot listen on port 0 of '{host}'"):
        bind(host, 0)


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "http://127.0.0.1:"), ("::1", "http://[::1]:")])
def test_port_0_takes_a_free_port_and_says_which(host: str, shown: str) -> None:
    with bind(host, 0) as listener:
        assert url_of(listener).startswith(shown)
        assert not url_of(listener).endswith(":0")
