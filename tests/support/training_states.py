"""Cuts training runs short, and compares what they saved bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch

from turnwise_training.optimizers import Optimizers


class CutError(Exception):
    """Stops a run as a crash would: between two steps, nothing tidied."""


def cut_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Make the optimizers fail after this many steps of any of them."""
    real = Optimizers.step
    taken = 0

    def step(self: Optimizers, share: float) -> None:
        nonlocal taken
        if taken == steps:
            raise CutError
        taken += 1
        real(self, share)

    monkeypatch.setattr(Optimizers, "step", step)


def final_state(run: Path) -> dict[str, Any]:
    """Return the newest saved state of a run."""
    newest = max((run / "steps").glob("[0-9]*"))
    state: dict[str, Any] = torch.load(newest / "state.pt", weights_only=True)
    return state


def assert_equal(left: object, right: object) -> None:
    """Compare nested states bit for bit."""
    assert type(left) is type(right)
    if isinstance(left, torch.Tensor):
        assert isinstance(right, torch.Tensor)
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert isinstance(right, dict)
        assert left.keys() == right.keys()
        for key in left:
            assert_equal(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert isinstance(right, list | tuple)
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert_equal(a, b)
    else:
        assert left == right
