"""A run that is cut anywhere goes on to exactly the result of the run that was not."""

import contextlib
import errno
import json
import os
import pkgutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from turnwise_training.config import PretrainConfig, RewardConfig, SFTConfig
from turnwise_training.errors import RunError
from turnwise_training.optimizers import Optimizers
from turnwise_training.parallel import Parallel
from turnwise_training.pretrain import run_pretrain
from turnwise_training.recipe import load_config
from turnwise_training.reward import run_reward
from turnwise_training.run import Run
from turnwise_training.sft import run_sft


class CutError(Exception):
    """Stops a run as a crash would: between two steps, nothing tidied."""


def cut_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Make the optimizer fail after this many steps."""
    real = Optimizers.step
    taken = 0

    def step(self: Optimizers, share: float) -> None:
        nonlocal taken
        if taken == steps:
            raise CutError
        taken += 1
        real(self, share)

    monkeypatch.setattr(Optimizers, "step", step)


def final_state(folder: Path) -> dict[str, Any]:
    """Return the newest saved state of a run."""
    newest = max((folder / "steps").glob("[0-9]*"))
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


def run_stage(stage: str, recipe: Path, *overrides: str) -> None:
    """Run a stage in this process."""
    if stage == "pretrain":
        run_pretrain(load_config(PretrainConfig, recipe, overrides), force=True)
    elif stage == "reward":
        run_reward(load_config(RewardConfig, recipe, overrides), force=True)
    else:
        run_sft(load_config(SFTConfig, recipe, overrides), force=True)


@pytest.mark.parametrize("stage", ["pretrain", "sft", "reward"])
@pytest.mark.parametrize("cut", [3, 5])
def test_a_cut_run_resumes_to_bit_equal_weights_optimizer_and_log(
    stage: str,
    cut: int,
    tmp_path: Path,
    pretrain_recipe: Path,
    sft_recipe: Path,
    reward_recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = {"pretrain": pretrain_recipe, "sft": sft_recipe, "reward": reward_recipe}[stage]
    if stage == "sft":
        run_stage("pretrain", pretrain_recipe)
    run_stage(stage, recipe, "name=whole")
    with monkeypatch.context() as patch:
        cut_after(patch, cut)
        with pytest.raises(CutError):
            run_stage(stage, recipe, "name=cut")
    run_stage(stage, recipe, "name=cut")
    assert_equal(final_state(tmp_path / "runs/cut"), final_state(tmp_path / "runs/whole"))
    assert (tmp_path / "runs/cut/log.jsonl").read_text() == (tmp_path / "runs/whole/log.jsonl").read_text()
    assert len((tmp_path / "runs/cut/log.jsonl").read_text().splitlines()) >= 6


@pytest.mark.slow
def test_a_killed_process_resumes_to_the_same_weights(tmp_path: Path, pretrain_recipe: Path) -> None:
    run_stage("pretrain", pretrain_recipe, "name=whole", "save_every=1", "tokens=10240")
    command = [
        sys.executable,
        "-c",
        "from turnwise_training.cli import main; main()",
        "pretrain",
        str(pretrain_recipe),
    ]
    command += ["name=killed", "save_every=1", "tokens=10240", "--force"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    kills = 0
    for lines_before_kill in (3, 9):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        for _ in range(lines_before_kill):
            process.stderr.readline()
        process.send_signal(signal.SIGKILL)
        process.stderr.close()
        kills += process.wait() == -signal.SIGKILL
    assert kills == 2
    run_stage("pretrain", pretrain_recipe, "name=killed", "save_every=1", "tokens=10240")
    killed, whole = tmp_path / "runs/killed", tmp_path / "runs/whole"
    assert_equal(final_state(killed), final_state(whole))
    assert (killed / "log.jsonl").read_text() == (whole / "log.jsonl").read_text()


def new_run(folder: Path) -> Run:
    return Run(folder, {"name": "x"}, Parallel())


def test_a_process_killed_inside_a_save_leaves_the_step_before_it(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    run.save(1, {"weights": torch.ones(3)})
    unfinished = tmp_path / "steps/.tmp-00000002"
    unfinished.mkdir()
    (unfinished / "state.pt").write_bytes(b"half")
    state = new_run(tmp_path).load()
    assert state is not None
    assert state["step"] == 1
    assert not unfinished.exists()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "no manifest"])
def test_a_damaged_step_is_passed_over_for_the_one_before(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run(tmp_path)
    run.save(1, {"weights": torch.ones(3)})
    run.save(2, {"weights": torch.ones(3)})
    newest = tmp_path / "steps/00000002"
    content = (newest / "state.pt").read_bytes()
    if damage == "truncated":
        (newest / "state.pt").write_bytes(content[:-1])
    elif damage == "flipped":
        (newest / "state.pt").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        (newest / "MANIFEST.json").unlink()
    state = new_run(tmp_path).load()
    assert state is not None
    assert state["step"] == 1
    assert "00000002 is damaged" in capsys.readouterr().err
    new_run(tmp_path).save(2, {"weights": torch.zeros(3)})
    state = new_run(tmp_path).load()
    assert state is not None
    assert torch.equal(state["weights"], torch.zeros(3))


@pytest.mark.parametrize(
    "place", ["os.fsync", "torch.save", "Path.rename", "Path.replace", "shutil.disk_usage"]
)
@pytest.mark.parametrize("calls_before", range(4))
def test_a_process_that_ends_anywhere_in_a_save_leaves_a_whole_step(
    place: str, calls_before: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tmp_path)
    run.save(1, {"weights": torch.ones(3)})
    real = pkgutil.resolve_name(f"turnwise_training.run:{place}")
    calls = 0

    def ending(*arguments: object, **settings: object) -> object:
        nonlocal calls
        calls += 1
        if calls > calls_before:
            raise CutError
        return real(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(f"turnwise_training.run.{place}", ending)
        with contextlib.suppress(CutError):
            run.save(2, {"weights": torch.zeros(3)})
    state = new_run(tmp_path).load()
    assert state is not None
    expected = torch.ones(3) if state["step"] == 1 else torch.zeros(3)
    assert torch.equal(state["weights"], expected)


def test_the_log_is_cut_back_to_the_loaded_step(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    run.log({"step": 1})
    run.save(1, {})
    run.log({"step": 2})
    again = new_run(tmp_path)
    again.load()
    again.log({"step": 2})
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [1, 2]


def test_a_full_disk_is_reported_and_the_step_before_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tmp_path)
    run.save(1, {"weights": torch.ones(3)})

    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("turnwise_training.run.os.fsync", no_space)
        with pytest.raises(RunError, match=r"step 2 could not be saved.*earlier steps are kept"):
            run.save(2, {"weights": torch.ones(3)})
    state = new_run(tmp_path).load()
    assert state is not None
    assert state["step"] == 1
    assert [path.name for path in (tmp_path / "steps").iterdir()] == ["00000001"]


def test_too_little_free_space_is_seen_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tmp_path)
    run.save(1, {"weights": torch.ones(3)})
    monkeypatch.setattr("turnwise_training.run.shutil.disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(RunError, match="free disk space"):
        run.save(2, {"weights": torch.ones(3)})


def test_only_the_newest_steps_are_kept(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    for step in range(1, 5):
        run.save(step, {})
    assert sorted(path.name for path in (tmp_path / "steps").iterdir()) == ["00000003", "00000004"]


def test_a_run_refuses_another_configuration(tmp_path: Path) -> None:
    new_run(tmp_path)
    with pytest.raises(RunError, match="another configuration"):
        Run(tmp_path, {"name": "y"}, Parallel())
