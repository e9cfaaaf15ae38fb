"""Tiny checkpoints, saved once a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.tiny_models import FAMILIES, Family, save_tiny_model


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[Family, Path]:
    """A saved tiny model of each family."""
    return {family: save_tiny_model(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


@pytest.fixture(scope="session")
def llama_dir(checkpoints: dict[Family, Path]) -> Path:
    """The saved tiny Llama."""
    return checkpoints["llama"]
