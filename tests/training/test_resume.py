"""A run that is cut anywhere goes on to exactly the result of the run that was not."""

import contextlib
import errno
import json
import pkgutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from support.training_processes import run_stage
from support.training_states import CutError, assert_equal, cut_after, final_state
from turnwise_training.errors import RunError
from turnwise_training.parallel import Parallel
from turnwise_training.run import Run


@pytest.mark.parametrize(
    ("stage", "cut"),
    [(stage, cut) for stage in ("pretrain", "sft", "reward") for cut in (3, 5)] + [("ppo", 14)],
)
def test_28_a_cut_run_resumes_to_bit_equal_weights_optimizer_and_log(
    stage: str,
    cut: int,
    tmp_path: Path,
    base_checkpoint: Path,
    pretrain_recipe: Path,
    sft_recipe: Path,
    reward_recipe: Path,
    ppo_recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "pretrained").symlink_to(base_checkpoint)
    recipes = {"pretrain": pretrain_recipe, "sft": sft_recipe, "reward": reward_recipe, "ppo": ppo_recipe}
    settings = [f"output={tmp_path}/out"]
    run_stage(stage, recipes[stage], "name=whole", *settings)
    with monkeypatch.context() as patch:
        cut_after(patch, cut)
        with pytest.raises(CutError):
            run_stage(stage, recipes[stage], "name=cut", *settings)
    assert final_state(tmp_path / "runs/cut")["step"] > 0
    run_stage(stage, recipes[stage], "name=cut", *settings)
    assert_equal(final_state(tmp_path / "runs/cut"), final_state(tmp_path / "runs/whole"))
    assert (tmp_path / "runs/cut/log.jsonl").read_text() == (tmp_path / "runs/whole/log.jsonl").read_text()


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
