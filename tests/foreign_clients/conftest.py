"""Servers for the clients of others, and the environment those clients live in. See conversation.py for the script."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from foreign_clients.conversation import ANSWERS, DEFAULT_ANSWER
from support.fake_model import write_fake_model, write_script
from support.foreign_suites import BIN, FOREIGN, ForeignClients, clients_environment
from support.live_server import LiveServer, live_server
from support.phrase_policy import write_phrase_policy
from support.tiny_checkpoints import write_tiny_checkpoint
from support.tool_templates import HERMES
from turnwise_server.auth import hash_key

TestStatus = tuple[str, str, str | tuple[str, Mapping[str, bool]]]

collect_ignore = ["suites"]  # for other test runners, which the tests here start

KEY = "sk-test-of-a-good-client"
LIMITED_KEY = "sk-test-of-a-limited-client"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_report_teststatus(
    report: pytest.CollectReport | pytest.TestReport,
) -> Generator[None, TestStatus, TestStatus]:
    """Let every subtest be shown with its name, which schemathesis takes off."""
    category, letter, word = yield
    if isinstance(report, pytest.SubtestReport) and word:
        return category, letter, f"{str(word).partition('[')[0]}[{report.context.msg}]"
    return category, letter, word


@dataclass(frozen=True, slots=True)
class Servers:
    """The addresses that tests speak to, each ending in /v1. Parameters that a server does not know are errors."""

    scripted: str
    """Says what conversation.py says, to KEY; LIMITED_KEY gets 429, any other 401."""
    busy: str
    """Answers 503 to everybody: its queue is full."""
    random: str
    """A tiny random model that knows tools: what it says is nonsense, in the form that is asked for."""


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("foreign")
    model = write_fake_model(folder / "fake", context_length=16384, template=HERMES)
    random = write_tiny_checkpoint(folder / "random", template=HERMES, context_length=4096)
    with ExitStack() as stack:
        scripted = stack.enter_context(live_server(model, *_scripted(folder)))
        busy = stack.enter_context(live_server(model, *_busy(folder)))
        stack.enter_context(_full(busy))
        babbling = stack.enter_context(live_server(random, "--dtype", "float32", "--strict-params"))
        yield Servers(f"{scripted.url}/v1", f"{busy.url}/v1", f"{babbling.url}/v1")


@pytest.fixture(scope="session")
def starter() -> Iterator[LiveServer]:
    """The model that ships with Turnwise, under its own name."""
    with live_server(None, "--model-name", "starter") as server:
        yield server


@pytest.fixture
def python_clients(servers: Servers, tmp_path: Path) -> ForeignClients:
    return _clients(servers, tmp_path, BIN / "python")


@pytest.fixture
def node_clients(servers: Servers, tmp_path: Path) -> ForeignClients:
    return _clients(servers, tmp_path, FOREIGN / "node_modules" / "openai" / "package.json")


def _clients(servers: Servers, folder: Path, needed: Path) -> ForeignClients:
    if not needed.exists():
        pytest.skip(f"{needed.relative_to(FOREIGN.parents[1])} is missing: `make test` installs it")
    environment = clients_environment(
        folder,
        TURNWISE_TEST_URL=servers.scripted,
        TURNWISE_TEST_BUSY_URL=servers.busy,
        TURNWISE_TEST_RANDOM_URL=servers.random,
        TURNWISE_TEST_KEY=KEY,
        TURNWISE_TEST_LIMITED_KEY=LIMITED_KEY,
    )
    return ForeignClients(environment, folder)


def _scripted(folder: Path) -> tuple[str, ...]:
    script = write_script(folder / "script.json", DEFAULT_ANSWER, answers=ANSWERS, token_delay_ms=2)
    keys = folder / "keys.txt"
    keys.write_text(
        f"sha256:{hash_key(KEY).digest} good\nsha256:{hash_key(LIMITED_KEY).digest} limited tpm=1\n"
    )
    flags = (
        "--engine",
        "fake",
        "--fake-script",
        str(script),
        "--default-max-tokens",
        "8192",
        "--strict-params",
    )
    return (*flags, "--api-keys-file", str(keys), "--policy", str(write_phrase_policy(folder)))


def _busy(folder: Path) -> tuple[str, ...]:
    script = write_script(folder / "slow.json", "word " * 3000, token_delay_ms=1000)
    flags = ("--engine", "fake", "--fake-script", str(script), "--default-max-tokens", "3000")
    return (*flags, "--request-timeout-s", "3600", "--max-batch", "1", "--max-queued-requests", "1")


def _full(server: LiveServer) -> ExitStack:
    """Ask for a reply that runs and one that waits, and stay until the stack is closed."""
    stack = ExitStack()
    for _ in range(2):
        stack.enter_context(
            httpx2.stream(
                "POST",
                f"{server.url}/v1/chat/completions",
                json={"model": "test", "messages": [{"role": "user", "content": "hello"}], "stream": True},
            )
        )
    return stack
