"""What the tests of the promises share: the log, and one real server on a tiny random model."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from support.fake_model import write_fake_model
from support.live_server import LiveServer, live_server
from support.tiny_checkpoints import write_tiny_checkpoint
from support.tool_templates import HERMES


@pytest.fixture(autouse=True)
def log_lines() -> Iterator[list[structlog.typing.EventDict]]:
    """What the server logged during the test."""
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose template knows tools."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("promises") / "tiny", template=HERMES)


@pytest.fixture(scope="session")
def server(tiny_checkpoint: Path) -> Iterator[LiveServer]:
    """A server that no test harms."""
    with live_server(tiny_checkpoint, "--dtype", "float32") as running:
        yield running


@pytest.fixture(scope="session")
def fake_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory for the fake engine, with a context that nothing fills."""
    return write_fake_model(tmp_path_factory.mktemp("promises") / "fake", context_length=200_000)
