"""A run that is cut anywhere goes on to exactly the result of the run that was not."""

import contextlib
import errno
import json
import pkgutil
import re
import resource
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from support.training_processes import run_stage, start
from support.training_states import CutError, assert_equal, cut_after, final_state
from turnwise_training.cli import main
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


def run_on_a_small_disk(bytes_left: int, recipe: Path, said: Path, *overrides: str) -> None:
    """Run `turnwise-train pretrain` where no file may grow over `bytes_left`; write down what it says."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, bytes_left))
    sys.argv = ["turnwise-train", "pretrain", str(recipe), *overrides]
    with said.open("w") as file, contextlib.redirect_stderr(file):
        main()


def test_30_a_run_that_meets_a_full_disk_says_so_and_goes_on_from_the_step_before(
    tmp_path: Path, pretrain_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stage("pretrain", pretrain_recipe, "name=whole", f"output={tmp_path}/out")
    with monkeypatch.context() as patch:
        cut_after(patch, 3)
        with pytest.raises(CutError):
            run_stage("pretrain", pretrain_recipe, f"output={tmp_path}/out")
    said = tmp_path / "said"
    small = start(run_on_a_small_disk, 30_000, pretrain_recipe, said, f"output={tmp_path}/out", "--force")
    small.join()
    assert small.exitcode == 2
    message = said.read_text().splitlines()[-1]
    assert re.fullmatch(
        r"turnwise-train: step 6 could not be saved \(.*\); earlier steps are kept: .*", message
    )
    assert [path.name for path in (tmp_path / "runs/pre/steps").iterdir()] == ["00000003"]
    run_stage("pretrain", pretrain_recipe, f"output={tmp_path}/out")
    assert_equal(final_state(tmp_path / "runs/pre"), final_state(tmp_path / "runs/whole"))


def test_30_an_export_that_meets_a_full_disk_leaves_nothing_torn_and_can_be_repeated(
    tmp_path: Path, pretrain_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*arguments: object, **settings: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("transformers.PreTrainedModel.save_pretrained", no_space)
        with pytest.raises(RunError, match=r"pretrained could not be written .*the run's steps are kept"):
            run_stage("pretrain", pretrain_recipe)
    assert not list(tmp_path.glob("*pretrained*"))
    run_stage("pretrain", pretrain_recipe)
    assert (tmp_path / "pretrained/model.safetensors").is_file()


def test_a_run_folder_that_cannot_be_written_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "steps").write_text("a file stands where steps should go")
    with pytest.raises(RunError, match="cannot be written"):
        new_run(tmp_path)


def test_a_log_that_cannot_be_written_is_an_error_that_says_so(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    (tmp_path / "log.jsonl").unlink()
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(RunError, match="saved steps are kept"):
        run.log({"step": 1})


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
