"""One real server on a tiny random model, shared by the tests that do not harm it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.live_server import LiveServer, live_server
from support.tiny_checkpoints import write_tiny_checkpoint


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def server(tiny_checkpoint: Path) -> Iterator[LiveServer]:
    with live_server(tiny_checkpoint, "--dtype", "float32") as running:
        yield running
