"""What tests of the whole server share."""

import os

import pytest


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the tester's own `TURNWISE_*` variables."""
    for name in [name for name in os.environ if name.upper().startswith("TURNWISE_")]:
        monkeypatch.delenv(name)
