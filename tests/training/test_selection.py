"""Fine-tuning keeps the epoch that a recipe selects, also through a cut."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from turnwise_training import loop, selection
from turnwise_training.config import SFTConfig
from turnwise_training.errors import ConfigurationError
from turnwise_training.models import new_reward_model
from turnwise_training.recipe import load_config
from turnwise_training.selection import BestEpoch, LastEpoch
from turnwise_training.sft import run_sft
from turnwise_training.tokenizer import save_tokenizer

Write = Callable[[str, list[object]], Path]


def judged(*figures: float, by: Any = "loss") -> tuple[BestEpoch, nn.Linear]:
    """Return a choice among epochs of two steps with these figures, and weights that count the epochs."""
    left = list(figures)
    module = nn.Linear(1, 1)
    nn.init.zeros_(module.weight)
    return BestEpoch(module, lambda: left.pop(0), by=by, steps_per_epoch=2), module


def train_epochs(choice: BestEpoch, module: nn.Linear, *epochs: int) -> list[dict[str, object]]:
    lines = []
    for epoch in epochs:
        for step in (2 * epoch - 1, 2 * epoch):
            nn.init.constant_(module.weight, step / 2)
            lines.append(choice.after_step(step))
    return lines


@pytest.mark.parametrize(("by", "kept"), [("loss", 2), ("reward", 3)])
def test_the_best_epoch_is_kept_and_the_earlier_of_equal_ones(by: str, kept: int) -> None:
    choice, module = judged(0.5, 0.2, 0.7, 0.2, 0.7, by=by)
    lines = train_epochs(choice, module, 1, 2, 3, 4, 5)
    assert lines[:4] == [{}, {f"held_out_{by}": 0.5}, {}, {f"held_out_{by}": 0.2}]
    choice.restore()
    assert module.weight.item() == kept
    assert choice.facts["selection"] == {"by": by, "epochs": [0.5, 0.2, 0.7, 0.2, 0.7], "kept_epoch": kept}


def test_a_choice_goes_on_from_its_state() -> None:
    choice, module = judged(0.2)
    train_epochs(choice, module, 1)
    again, other = judged(0.5)
    again.load_state_dict(choice.state_dict())
    train_epochs(again, other, 2)
    again.restore()
    assert other.weight.item() == 1


def test_the_last_epoch_holds_no_state() -> None:
    assert LastEpoch().state_dict() == LastEpoch().after_step(2) == LastEpoch().facts == {}


@pytest.fixture
def recipe(
    tmp_path: Path, base_checkpoint: Path, tokenizer: PreTrainedTokenizerFast, write_source: Write
) -> Path:
    """Three epochs of two steps, and a reward model to judge them."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Hello, I am number {n}."},
                {"role": "assistant", "content": "Hi, the cat sat."},
            ]
        }
        for n in range(200)
    ]
    write_source("talk", list(rows))
    judge = new_reward_model(base_checkpoint, seed=3)
    judge.config.pad_token_id = tokenizer.pad_token_id
    judge.save_pretrained(tmp_path / "judge")
    save_tokenizer(tokenizer, tmp_path / "judge")
    values = {
        "name": "sft",
        "model": str(base_checkpoint),
        "output": str(tmp_path / "sft"),
        "data": str(tmp_path / "data"),
        "runs": str(tmp_path / "runs"),
        "rows": {"talk": 22},
        "epochs": 3,
        "seq_len": 64,
        "long_seq_len": 128,
        "batch_tokens": 512,
        "micro_tokens": 512,
        "save_every": 1,
        "eval_tokens": 200,
        "compile": False,
        "sampling": {"max_new_tokens": 6, "max_prompt_tokens": 100},
        "reward_model": str(tmp_path / "judge"),
    }
    path = tmp_path / "sft.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def fine_tune(recipe: Path, *overrides: str) -> None:
    run_sft(load_config(SFTConfig, recipe, overrides), force=True)


def final_state(folder: Path) -> dict[str, Any]:
    newest = max((folder / "steps").glob("[0-9]*"))
    state: dict[str, Any] = torch.load(newest / "state.pt", weights_only=True)
    return state


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("select", ["loss", "reward"])
def test_the_exported_weights_are_those_of_the_kept_epoch(select: str, tmp_path: Path, recipe: Path) -> None:
    fine_tune(recipe, f"select={select}")
    record = json.loads((tmp_path / "sft/training.json").read_text())["selection"]
    figures = [line[f"held_out_{select}"] for line in log_of(tmp_path / "runs/sft") if line["step"] % 2 == 0]
    best = min if select == "loss" else max
    assert record == {"by": select, "epochs": figures, "kept_epoch": 1 + figures.index(best(figures))}
    assert len(figures) == 3
    state = final_state(tmp_path / "runs/sft")
    held = state["selection"]["weights"]
    for name, weight in load_file(tmp_path / "sft/model.safetensors").items():
        assert torch.equal(weight, held[name].to(torch.bfloat16))
    if record["kept_epoch"] < 3:
        assert not torch.equal(held["model.norm.weight"], state["model"]["model.norm.weight"])


def distance_walked(model: PreTrainedModel, *_: object, **__: object) -> dict[str, dict[str, float]]:
    """Return a held-out loss that grows with training: the change of the norms' weights, which begin at 1."""
    away = sum(float((weight.detach() - 1).abs().sum()) for weight in model.parameters() if weight.ndim == 1)
    return {"talk": {"nats_per_token": away, "tokens": 1}}


def test_weights_that_training_spoiled_later_are_those_of_the_earlier_epoch(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, torch.Tensor]] = []

    def watched(model: PreTrainedModel, *_: object, **__: object) -> dict[str, dict[str, float]]:
        seen.append({name: weight.to(torch.bfloat16) for name, weight in model.state_dict().items()})
        return distance_walked(model)

    monkeypatch.setattr(selection, "held_out_losses", watched)
    fine_tune(recipe, "select=loss")
    assert json.loads((tmp_path / "sft/training.json").read_text())["selection"]["kept_epoch"] == 1
    for name, weight in load_file(tmp_path / "sft/model.safetensors").items():
        assert torch.equal(weight, seen[0][name])
    assert not torch.equal(seen[0]["model.norm.weight"], seen[2]["model.norm.weight"])


@pytest.mark.parametrize("select", ["loss", "reward"])
@pytest.mark.parametrize("cut", [3, 5])
def test_28_a_cut_run_keeps_the_same_epoch_and_the_same_weights(
    select: str, cut: int, tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "held_out_losses", distance_walked)
    whole, again = tmp_path / "whole", tmp_path / "again"
    fine_tune(recipe, f"select={select}", "name=whole", f"output={whole}")
    real = loop.update
    steps = 0

    def failing(*arguments: Any, **named: Any) -> float:
        nonlocal steps
        steps += 1
        if steps > cut:
            raise InterruptedError
        return real(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "update", failing)
        with pytest.raises(InterruptedError):
            fine_tune(recipe, f"select={select}", "name=again", f"output={again}")
    fine_tune(recipe, f"select={select}", "name=again", f"output={again}")
    assert (whole / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()
    assert log_of(tmp_path / "runs/whole") == log_of(tmp_path / "runs/again")
    one, other = (final_state(tmp_path / "runs" / name)["selection"] for name in ("whole", "again"))
    assert one["figures"] == other["figures"]


def test_a_judge_is_needed_to_select_by_reward(recipe: Path) -> None:
    with pytest.raises(ConfigurationError, match="select: reward needs reward_model"):
        fine_tune(recipe, "select=reward", "reward_model=null")


def test_dropout_goes_on_after_an_epoch_was_judged(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    real = loop.update

    def watched(model: nn.Module, *arguments: Any, **named: Any) -> float:
        modes.append(model.training)
        return real(model, *arguments, **named)

    monkeypatch.setattr(loop, "update", watched)
    fine_tune(recipe, "select=loss")
    assert modes == [True] * 6
