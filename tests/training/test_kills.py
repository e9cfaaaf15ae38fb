"""A run killed at any moment, inside a save too, goes on to exactly the result of the run that was not."""

import contextlib
import os
import random
import shutil
import signal
import time
from pathlib import Path
from unittest.mock import patch

import pytest

from support.training_processes import run_stage, start
from support.training_states import assert_equal, final_state
from turnwise_training.run import file_sha256

KILLS = 20
STEPS = {
    "pretrain": ["tokens=10240"],
    "sft": ["epochs=14"],
    "reward": ["epochs=13"],
    "ppo": ["iterations=40", "batch=2", "minibatch=2", "micro=2", "max_new_tokens=4"],
}


def run_slowly(pace: float, stage: str, recipe: Path, *overrides: str) -> None:
    """Run a stage whose files take `pace` seconds each to reach the disk, so that kills fall into saves."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        time.sleep(pace)
        real(descriptor)

    with patch("os.fsync", fsync):
        run_stage(stage, recipe, *overrides)


def saved_steps(run: Path) -> int:
    return max((int(step.name) for step in run.glob("steps/[0-9]*")), default=0)


def kill_once(run: Path, rng: random.Random, pace: float, stage: str, recipe: Path, *overrides: str) -> str:
    """Begin a run or go on with it, and kill it at a random moment; return where that was.

    A quarter of the kills aim at a save. Half of the others wait for one more step, so that the run gets on, and none
    waits for two more; `pace` is about the time a step takes.
    """
    aims_at_save = rng.random() < 0.25
    began_ns = time.time_ns()
    process = start(
        run_slowly, pace / 2 if aims_at_save else rng.choice([0.0, pace / 2]), stage, recipe, *overrides
    )
    wanted = saved_steps(run) + (0 if aims_at_save else rng.choice([0, 1]))
    while process.is_alive() and saved_steps(run) < wanted:
        time.sleep(0.005)
    while aims_at_save and process.is_alive() and not is_saving(run, began_ns):
        time.sleep(0.001)
    deadline = time.monotonic() + rng.uniform(0, pace / 4 if aims_at_save else 3 * pace)
    while time.monotonic() < deadline and saved_steps(run) <= wanted:
        time.sleep(0.005)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    return "in a save" if is_saving(run, began_ns) else "elsewhere"


def is_saving(run: Path, since_ns: int) -> bool:
    """Tell whether a step is being written, or was when its process ended; older torn ones do not count."""
    for torn in run.glob("steps/.tmp-*"):
        with contextlib.suppress(FileNotFoundError):
            if torn.stat().st_mtime_ns >= since_ns:
                return True
    return False


def finish(stage: str, recipe: Path, *overrides: str) -> None:
    """Begin a run or go on with it, undisturbed to the end."""
    process = start(run_stage, stage, recipe, *overrides)
    process.join()
    assert process.exitcode == 0


@pytest.mark.slow
@pytest.mark.parametrize("stage", STEPS)
def test_29_a_run_killed_twenty_times_ends_bit_equal_to_one_that_was_not(
    stage: str,
    tmp_path: Path,
    pretrain_recipe: Path,
    sft_recipe: Path,
    reward_recipe: Path,
    ppo_recipe: Path,
    base_checkpoint: Path,
) -> None:
    shutil.copytree(base_checkpoint, tmp_path / "pretrained")
    recipe = {"pretrain": pretrain_recipe, "sft": sft_recipe, "reward": reward_recipe, "ppo": ppo_recipe}[
        stage
    ]
    settings = ["save_every=1", f"output={tmp_path}/out", *STEPS[stage]]
    whole, killed = tmp_path / "runs/whole", tmp_path / "runs/killed"
    began = time.monotonic()
    finish(stage, recipe, "name=whole", *settings)
    pace = (time.monotonic() - began) / saved_steps(whole)
    exported = file_sha256(tmp_path / "out/model.safetensors")
    shutil.rmtree(tmp_path / "out")
    rng = random.Random(stage)
    places = [kill_once(killed, rng, pace, stage, recipe, "name=killed", *settings) for _ in range(KILLS)]
    assert places.count("in a save") > 1
    assert 1 < saved_steps(killed) < saved_steps(whole)
    finish(stage, recipe, "name=killed", *settings)
    assert (killed / "log.jsonl").read_bytes() == (whole / "log.jsonl").read_bytes()
    assert file_sha256(tmp_path / "out/model.safetensors") == exported
    assert_equal(final_state(killed), final_state(whole))
