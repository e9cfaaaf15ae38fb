"""Any number of processes gives the result of one, with whole weights on each or with shards of them."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from support.training_processes import FSDP2, run_stage, together
from support.training_states import final_state
from turnwise_training.config import Optimization
from turnwise_training.errors import ConfigurationError, TrainingError
from turnwise_training.loop import row_loss
from turnwise_training.models import load_model
from turnwise_training.optimizers import Optimizers
from turnwise_training.parallel import Parallel
from turnwise_training.rollout import TransformersEngine
from turnwise_training.run import Run

WHOLE: dict[str, str] = {}
LAYOUTS = [pytest.param(WHOLE, id="whole"), pytest.param(FSDP2, id="fsdp2")]
LANGUAGE = ["optimization.muon_learning_rate=0", "optimization.learning_rate=0.001"]
STEPS = {
    # A batch of 8 rows in micro-batches of 3, 3 and 2: one process has two of them, the other one.
    "pretrain": [*LANGUAGE, "tokens=768", "micro_tokens=96"],
    "sft": [*LANGUAGE, "epochs=1"],
    "reward": ["epochs=1"],
    "ppo": ["iterations=2"],
}


@pytest.fixture
def recipes(
    pretrain_recipe: Path, sft_recipe: Path, reward_recipe: Path, ppo_recipe: Path, base_checkpoint: Path
) -> dict[str, Path]:
    """Every stage's recipe; fine-tuning starts from random weights here."""
    shutil.copytree(base_checkpoint, base_checkpoint.with_name("pretrained"))
    return {"pretrain": pretrain_recipe, "sft": sft_recipe, "reward": reward_recipe, "ppo": ppo_recipe}


def log(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def assert_same(left: Any, right: Any, *, within: float) -> None:
    """Compare nested values: equal, but for floats and weights, which may differ by rounding."""
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same(left[key], right[key], within=within)
    elif isinstance(left, list):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert_same(a, b, within=within)
    elif isinstance(left, torch.Tensor | float):
        torch.testing.assert_close(left, right, atol=within, rtol=within)
    else:
        assert left == right


def assert_equal_runs(one: Path, many: Path) -> None:
    assert_same(log(one), log(many), within=1e-6)
    states = final_state(one), final_state(many)
    for part in states[0].keys() & {"model", "policy", "value", "average"}:
        assert_same(states[0][part], states[1][part], within=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("stage", STEPS)
def test_31_32_two_processes_give_the_result_of_one(
    stage: str, layout: dict[str, str], tmp_path: Path, recipes: dict[str, Path]
) -> None:
    settings = ["precision=float32", "save_every=1", *STEPS[stage]]
    run_stage(stage, recipes[stage], "name=one", *settings)
    output = f"output={tmp_path}/exported"
    assert together(run_stage, stage, recipes[stage], "name=two", output, *settings, environment=layout) == [
        0,
        0,
    ]
    assert_equal_runs(tmp_path / "runs/one", tmp_path / "runs/two")
    kind = AutoModelForSequenceClassification if stage == "reward" else AutoModelForCausalLM
    exported, loading = kind.from_pretrained(
        tmp_path / "exported", dtype=torch.bfloat16, output_loading_info=True
    )
    assert not any(loading.values())
    trained = final_state(tmp_path / "runs/two")
    trained = trained["average" if stage == "ppo" else "model"]
    for name, value in exported.state_dict().items():
        assert torch.equal(value, trained.get(name, value).to(torch.bfloat16))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_34_a_run_of_two_processes_goes_on_as_one_and_skips_and_repeats_nothing(
    layout: dict[str, str], tmp_path: Path, recipes: dict[str, Path]
) -> None:
    settings = ["precision=float32", "save_every=1", *STEPS["sft"]]
    run_stage("sft", recipes["sft"], "name=one", *settings)
    assert together(run_stage, "sft", recipes["sft"], "name=two", *settings, environment=layout) == [0, 0]
    newest = max((tmp_path / "runs/two/steps").iterdir())
    shutil.rmtree(newest)
    run_stage("sft", recipes["sft"], "name=two", *settings)
    assert newest.exists()
    assert_equal_runs(tmp_path / "runs/one", tmp_path / "runs/two")


def sample_answers(base: Path, output: Path) -> None:
    """Sample 5 answers that end after a few tokens or late, and write them down."""
    parallel = Parallel()
    model = load_model(base)
    parallel.place(model)
    ends = frozenset(range(60))  # of 300 tokens: an answer goes on for 5 on average
    engine = TransformersEngine(model, parallel, end_ids=ends, pad_id=1, batch=2, precision="float32")
    prompts = [[7 + row] * (row + 1) for row in range(5)]
    samples = parallel.spread(
        list(enumerate(prompts)),
        lambda part: engine.sample(
            [ids for _, ids in part], [key for key, _ in part], max_new_tokens=30, temperature=1.0
        ),
    )
    if parallel.is_main:
        output.write_text(json.dumps([sample.ids for sample in samples]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_32_two_processes_sample_the_same_answers_though_each_stops_at_its_own_time(
    layout: dict[str, str], tmp_path: Path, base_checkpoint: Path
) -> None:
    sample_answers(base_checkpoint, tmp_path / "one.json")
    assert together(sample_answers, base_checkpoint, tmp_path / "two.json", environment=layout) == [0, 0]
    answers = json.loads((tmp_path / "one.json").read_text())
    assert len({len(answer) for answer in answers}) > 2
    assert json.loads((tmp_path / "two.json").read_text()) == answers


def meet_errors(base: Path, folder: Path) -> None:
    """Meet errors of which two are the first process's alone; write down what each process sees."""
    parallel = Parallel()
    model = load_model(base)
    parallel.place(model)
    run = Run(folder / "run", {}, parallel)
    run.save(1, {"weights": torch.ones(3)})
    full = patch(
        "turnwise_training.run.os.fsync", side_effect=OSError(errno.ENOSPC, "No space left on device")
    )
    seen = []
    for attempt in (
        lambda: run.save(2, {"weights": torch.ones(3)}),
        lambda: Run(folder / "run", {"other": 1}, parallel),
        lambda: Optimizers(model, Optimization(muon_learning_rate=0.02)),
        lambda: row_loss(model, compile=True, precision="float32"),
    ):
        try:
            with full:
                attempt()
        except TrainingError as error:
            seen.append(f"{type(error).__name__}: {error}")
    (folder / f"seen-{parallel.rank}.json").write_text(json.dumps(seen))


def test_30_an_error_of_the_first_process_is_met_by_all(tmp_path: Path, base_checkpoint: Path) -> None:
    assert together(meet_errors, base_checkpoint, tmp_path, environment=FSDP2) == [0, 0]
    seen = [json.loads((tmp_path / f"seen-{rank}.json").read_text()) for rank in (0, 1)]
    assert seen[0] == seen[1]
    assert "step 2 could not be saved ([Errno 28] No space left on device)" in seen[0][0]
    assert "written by another configuration" in seen[0][1]
    assert "Muon needs whole matrices" in seen[0][2]
    assert "set compile: false" in seen[0][3]
    assert [step.name for step in (tmp_path / "run/steps").iterdir()] == ["00000001"]


def test_fsdp1_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(ConfigurationError, match="--fsdp_version 2"):
        Parallel()


def launch(*command: str) -> subprocess.CompletedProcess[str]:
    """Run the real command line in two processes."""
    launcher = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--multi_gpu"]
    launcher += ["--num_processes", "2", "--num_machines", "1", "--main_process_port", "0"]
    launcher += ["--mixed_precision", "no", "--dynamo_backend", "no", "-m", "turnwise_training.cli"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*launcher, *command], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.slow
def test_31_accelerate_launch_trains_and_says_an_error_once(tmp_path: Path, recipes: dict[str, Path]) -> None:
    settings = ["precision=float32", "save_every=1", *STEPS["pretrain"]]
    run_stage("pretrain", recipes["pretrain"], "name=one", *settings)
    done = launch("pretrain", str(recipes["pretrain"]), "name=two", "--force", *settings)
    assert done.returncode == 0, done.stderr
    assert_equal_runs(tmp_path / "runs/one", tmp_path / "runs/two")
    refused = launch("pretrain", str(recipes["pretrain"]), "name=two", *settings)
    assert refused.returncode != 0
    assert refused.stderr.count("pass --force to replace it") == 1
