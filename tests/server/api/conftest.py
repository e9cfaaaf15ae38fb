"""Keeps the server's log out of the test report; tests of the log configure it themselves."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def log_lines() -> Iterator[list[structlog.typing.EventDict]]:
    """What the server logged during the test."""
    with structlog.testing.capture_logs() as lines:
        yield lines
