"""Progress, timing and trackers: what a person watching a run sees."""

import io
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from turnwise_training.errors import ConfigurationError
from turnwise_training.parallel import Parallel
from turnwise_training.progress import Phases, Progress, duration, peak_memory
from turnwise_training.run import Run
from turnwise_training.trackers import open_trackers


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_elsewhere_than_on_a_terminal_every_step_is_a_plain_line() -> None:
    stream = io.StringIO()
    progress = Progress(steps=2, stream=stream)
    progress.show(1, tokens=100, loss=2.5)
    progress.show(2, tokens=100, score=1.0, kl=0.25)
    first, second = stream.getvalue().splitlines()
    assert first.startswith("step 1/2  loss 2.500  ")
    assert "score 1.000  kl 0.250" in second
    assert "tokens/s  memory " in first
    assert second.endswith("0s left")
    assert "\x1b" not in stream.getvalue()


def test_on_a_terminal_the_line_is_rewritten_and_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    stream = Terminal()
    progress = Progress(steps=2, stream=stream)
    progress.show(1, tokens=1, loss=1.0)
    progress.say("an alarm")
    progress.show(2, tokens=1, loss=1.0)
    first, message, second = stream.getvalue().split("\r\x1b[K")[1:]
    assert (len(first), message, len(second)) == (29, "an alarm\n", 30)
    assert second.endswith("\n")


def test_times_go_to_a_file_of_their_own_by_phase(tmp_path: Path) -> None:
    progress = Progress(steps=2, timing=tmp_path / "timing.jsonl", stream=io.StringIO())
    with progress.phases.measure("rollout"):
        time.sleep(0.01)
    progress.phases.count("rollout", 50)
    progress.show(1, tokens=50)
    progress.show(2, tokens=50)
    first, second = map(json.loads, (tmp_path / "timing.jsonl").read_text().splitlines())
    rollout = first["phases"]["rollout"]
    assert 0.01 <= rollout["seconds"] <= first["seconds"]
    assert rollout["tokens_per_s"] == pytest.approx(50 / rollout["seconds"])
    assert first["peak_bytes"]["memory"] > 1e6
    assert second["phases"] == {}


def test_a_phase_that_is_met_twice_adds_up() -> None:
    phases = Phases()
    for _ in range(2):
        with phases.measure("forward"):
            time.sleep(0.005)
    assert phases.take()["forward"]["seconds"] >= 0.01


@pytest.mark.parametrize(("seconds", "said"), [(0, "0s"), (75, "1m15s"), (7500, "2h05m")])
def test_durations_are_said_as_people_say_them(seconds: int, said: str) -> None:
    assert duration(seconds) == said


def test_peak_memory_counts_bytes() -> None:
    assert 1e7 < peak_memory()["memory"] < 1e12


def test_trackers_get_the_numbers_of_each_log_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[object] = []

    def init(**options: object) -> object:
        sent.append(options["name"])
        return SimpleNamespace(log=lambda figures, step: sent.append((step, figures)))

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    run = Run(tmp_path / "mine", {"seed": 1}, Parallel(), track=("wandb",))
    run.log({"step": 3, "loss": 0.5, "rows": [1, 2], "note": "x"})
    assert sent == ["mine", (3, {"loss": 0.5})]


def test_tensorboard_gets_scalars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []

    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            calls.append(("folder", folder))

        def add_text(self, *given: object) -> None:
            pass

        def add_scalar(self, *given: object) -> None:
            calls.append(given)

        def flush(self) -> None:
            pass

    monkeypatch.setitem(sys.modules, "tensorboard", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=SummaryWriter))
    (tracker,) = open_trackers(["tensorboard"], tmp_path, {})
    tracker.log(2, {"loss": 0.5})
    assert calls == [("folder", str(tmp_path / "tensorboard")), ("loss", 0.5, 2)]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_tracker_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigurationError, match=f"pip install {name}"):
        open_trackers([name], tmp_path, {})  # type: ignore[list-item]
