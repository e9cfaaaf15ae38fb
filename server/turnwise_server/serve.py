"""Runs the server: load, listen, drain on a signal, close the engine whatever happens. It knows no route."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any, TypeVar

import uvicorn

from turnwise_server.api.models.served import ServedModel, ServedModels
from turnwise_server.api.models.swaps import ModelSwaps
from turnwise_server.api.services import Services
from turnwise_server.api.storage import open_storage
from turnwise_server.api.telemetry.tracing import make_tracer
from turnwise_server.app import create_app
from turnwise_server.auth import KeyRing
from turnwise_server.chat.refusal.policy_file import DEFAULT_POLICY
from turnwise_server.chat.refusal.policy_holder import PolicyHolder
from turnwise_server.config import Settings
from turnwise_server.errors import TurnwiseError
from turnwise_server.limits.from_settings import make_limiter
from turnwise_server.listen import cannot_listen, url_of
from turnwise_server.load import load_model
from turnwise_server.log import get_logger
from turnwise_server.moderation.audit.opening import open_audit
from turnwise_server.moderation.enforcement import Enforcement, follow_policy

EXIT_ENGINE_LOST = 70
ENGINE_RESTART_LIMIT_S = 60.0
ENGINE_RESTART_LOADS = 5
"""An engine that is not back after this long plus this many times what loading took at the start will not come back:
the server ends, and who runs it may start another."""

KEEP_ALIVE_S = 65
"""Longer than clients and proxies keep idle connections, so that they close first and no request hits a closed one."""

LAST_BYTES_S = 3
"""How long the last bytes of aborted replies may take to reach their clients."""

Result = TypeVar("Result")


class Signals:
    """SIGTERM and Ctrl-C: the first asks to stop, the second insists, a third meets the system's own handler."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.insisted = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.reread = asyncio.Event()
        """SIGHUP: read the policy again."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._on_signal)
        self._loop.add_signal_handler(signal.SIGHUP, self.reread.set)

    def _on_signal(self) -> None:
        if not self.asked.is_set():
            self.asked.set()
            return
        self.insisted.set()
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.remove_signal_handler(number)


async def serve(settings: Settings, keys: KeyRing, listener: socket.socket) -> int:
    """Serve on a bound socket until a signal or the end of the engine; return the exit code.

    Raises:
        ConfigurationError: the model cannot be served.
    """
    signals = Signals()
    services = make_services(settings)
    began = time.monotonic()
    try:
        if await _unless(signals.asked, _load(services)) is None:
            return 0
        limit_s = ENGINE_RESTART_LIMIT_S + ENGINE_RESTART_LOADS * (time.monotonic() - began)
        return await _run(services, keys, listener, signals, restart_limit_s=limit_s)
    finally:
        await services.swaps.close()
        if services.enforcement is not None:
            await services.enforcement.close()
        await services.limiter.close()
        await asyncio.to_thread(services.storage.close)
        await services.tracer.close()
        listener.close()


def make_services(settings: Settings) -> Services:
    """Return the services of a server that has yet to load its models.

    Raises:
        ConfigurationError: there cannot be a database of that address, or no traces as they are asked for; or the
            policy is wrong.
    """
    tracer = make_tracer(settings.otlp_endpoint, os.environ)
    models = ServedModels(allows_default=settings.allow_default_model)
    policy = PolicyHolder(settings.policy or DEFAULT_POLICY)
    enforcement = None
    if not settings.unsafe_no_classifier:
        enforcement = Enforcement(open_audit(policy.current.policy.audit))
        policy.enact = enforcement.enact
    return Services(
        settings,
        models,
        ModelSwaps(models, partial(load_model, settings)),
        open_storage(settings),
        make_limiter(settings),
        policy,
        enforcement,
        tracer=tracer,
    )


async def _load(services: Services) -> Services:
    try:
        async with asyncio.TaskGroup() as loading:
            if services.enforcement is not None:
                loading.create_task(asyncio.to_thread(services.enforcement.enact, services.policy.current))
            loading.create_task(_load_models(services))
    except* TurnwiseError as errors:
        raise errors.exceptions[0] from None
    return services


async def _load_models(services: Services) -> None:
    for name, source in services.settings.named_models.items():
        await services.swaps.put(name, source)


async def _run(
    services: Services, keys: KeyRing, listener: socket.socket, signals: Signals, *, restart_limit_s: float
) -> int:
    server = _Server(
        uvicorn.Config(
            create_app(services, keys),
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=LAST_BYTES_S,
        ),
        on_started=lambda: _announce(services.settings, listener, has_keys=bool(keys)),
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    engine_lost = asyncio.create_task(_engine_lost(services.models, restart_limit_s))
    asked = asyncio.create_task(signals.asked.wait())
    following = asyncio.create_task(follow_policy(services.policy, signals.reread, services.enforcement))
    await asyncio.wait({serving, engine_lost, asked}, return_when=asyncio.FIRST_COMPLETED)
    exit_code = 0
    if engine_lost.done():
        get_logger().error("engine_lost", remedy="see the entries above for why the engine ended")
        exit_code = EXIT_ENGINE_LOST
    elif asked.done():
        await _drain(services, signals)
    services.lifecycle.aborted.set()
    server.should_exit = True
    await _unless(signals.insisted, asyncio.wait({serving}))
    server.force_exit = signals.insisted.is_set()
    try:
        await serving
    except OSError as error:
        raise cannot_listen(services.settings.host, services.settings.port, error) from error
    finally:
        for task in (engine_lost, asked, following):
            task.cancel()
    return exit_code


async def _drain(services: Services, signals: Signals) -> None:
    lifecycle, timeout_s = services.lifecycle, services.settings.drain_timeout_s
    get_logger().info("draining", running=lifecycle.requests, timeout_s=timeout_s)
    if lifecycle.requests and sys.stderr.isatty():
        print(f"Finishing {lifecycle.requests} replies. Press Ctrl-C again to stop now.", file=sys.stderr)  # noqa: T201
    await _unless(signals.insisted, lifecycle.drain(timeout_s))


async def _unless(event: asyncio.Event, work: Coroutine[Any, Any, Result]) -> Result | None:
    """Return the result of `work`, or None (and `work` cancelled) if `event` comes first."""
    task, waiting = asyncio.create_task(work), asyncio.create_task(event.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()
        waiting.cancel()
        await asyncio.gather(task, waiting, return_exceptions=True)


async def _engine_lost(models: ServedModels, limit_s: float) -> None:
    """Return when one of the engines has been dead for longer than `limit_s`."""
    last_alive: dict[ServedModel, float] = {}
    while True:
        now = time.monotonic()
        last_alive = {
            model: now if model.engine.stats().is_alive else last_alive.get(model, now) for model in models
        }
        if now - min(last_alive.values()) >= limit_s:
            return
        await asyncio.sleep(min(1.0, limit_s / 2))


class _Server(uvicorn.Server):
    """uvicorn without its signal handling (it would neither drain nor exit with 0), and with a word at the start."""

    def __init__(self, config: uvicorn.Config, *, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to `Signals`."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, then say so."""
        await super().startup(sockets)
        self._on_started()


def _announce(settings: Settings, listener: socket.socket, *, has_keys: bool) -> None:
    url = url_of(listener)
    get_logger().info("serving", url=url, model=settings.served_model_name, keys=has_keys)
    if sys.stderr.isatty():
        print(f"Serving {settings.served_model_name} on {url}\nTalk to it: turnwise chat", file=sys.stderr)  # noqa: T201
