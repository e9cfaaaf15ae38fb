"""The PPO stage from its recipe to a checkpoint: what it refuses, where it stops, what it leaves."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel
from typer.testing import CliRunner

from support import training_processes
from support.fake_vllm import fake_vllm
from turnwise_training.actors import build_actors
from turnwise_training.cli import app
from turnwise_training.config import PPOConfig
from turnwise_training.episodes import Episode
from turnwise_training.errors import ConfigurationError, RewardError, RunError
from turnwise_training.models import load_model
from turnwise_training.parallel import Parallel
from turnwise_training.ppo_stage import describe, run_ppo
from turnwise_training.recipe import load_config

SHORT = ["iterations=2", "batch=4", "minibatch=2", "micro=2", "max_new_tokens=3", "ptx=null", "save_every=1"]
FAST = [*SHORT, "precision=float32"]


def run(recipe: Path, *overrides: str) -> PPOConfig:
    config = load_config(PPOConfig, recipe, [*FAST, *overrides])
    run_ppo(config, force=False)
    return config


def lines(config: PPOConfig) -> list[dict[str, Any]]:
    text = (config.runs / config.name / "log.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def newest_state(config: PPOConfig) -> dict[str, Any]:
    newest = max((config.runs / config.name / "steps").glob("[0-9]*"))
    state: dict[str, Any] = torch.load(newest / "state.pt", weights_only=True)
    return state


def test_36_the_command_ends_in_a_checkpoint_that_bare_transformers_loads(
    tmp_path: Path, ppo_recipe: Path
) -> None:
    overrides = [each for each in FAST if not each.startswith("ptx")]
    arguments = ["ppo", str(ppo_recipe), *overrides]
    dry = CliRunner().invoke(app, [*arguments, "--dry-run"])
    assert dry.exit_code == 0, dry.output
    facts = json.loads(dry.stdout)
    assert (facts["episodes"], facts["optimizer_steps"]) == (8, 4)
    assert facts["prompts"] > 0
    assert facts["longest_row"] <= 128
    assert not (tmp_path / "runs").exists()

    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    folder = tmp_path / "ppo"
    names = {path.name for path in folder.iterdir()}
    assert {"README.md", "config.json", "training.json", "tokenizer.json", "chat_template.jinja"} < names
    assert {name for name in names if name.endswith((".bin", ".pt", ".safetensors"))} == {"model.safetensors"}
    config = load_config(PPOConfig, ppo_recipe, overrides)
    average = newest_state(config)["average"]
    for name, tensor in load_file(folder / "model.safetensors").items():
        assert torch.equal(tensor, average[name].to(torch.bfloat16))

    exported = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    rebuilt = load_model(tmp_path / "base")
    rebuilt.load_state_dict({name: tensor.bfloat16() for name, tensor in average.items()}, strict=False)
    ids = torch.tensor([AutoTokenizer.from_pretrained(folder)("Hello, the cat sat.")["input_ids"]])
    assert torch.equal(exported(ids).logits, rebuilt(ids).logits)

    record = json.loads((folder / "training.json").read_text())
    assert record["stage"] == "ppo"
    assert record["held_out_before"].keys() == record["held_out"].keys() == {"asked", "text"}
    assert record["held_out_before"]["text"]["nats_per_token"] > 0
    assert "ptx_nll" in lines(config)[-1]


def test_a_finished_stage_is_kept_unless_forced(ppo_recipe: Path) -> None:
    run(ppo_recipe)
    with pytest.raises(RunError, match="pass --force"):
        run(ppo_recipe)


def test_the_kl_limit_stops_the_run_with_its_state_saved(ppo_recipe: Path) -> None:
    with pytest.raises(RunError, match=r"stopped at iteration 1: .* nats an answer .* kl_max = -1"):
        run(ppo_recipe, "kl_max=-1.0", "save_every=10")
    config = load_config(PPOConfig, ppo_recipe, [])
    assert newest_state(config)["step"] == 1
    assert "kl" in lines(config)[-1]["alarms"]
    assert not config.output.exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["minibatch=9"], "micro 3, minibatch 9 and batch 8 do not fit into each other"),
        (["micro=5"], "micro 5, minibatch 4 and batch 8"),
        (["micro=0"], "make micro at least 1"),
        (["rewards=[]"], "rewards is empty; name at least one term"),
        (["max_prompt_tokens=4"], r"no prompts of at most 4 tokens in \['asked'\]"),
        (["max_new_tokens=120"], "the model's context is 128; lower max_prompt_tokens or max_new_tokens"),
        (["max_new_tokens=0"], "max_new_tokens is 0; it must be over 0"),
        (["temperature=0"], "temperature is 0"),
        (["iterations=0"], "iterations is 0"),
        (["engine.kind=vllm"], "engine.url is empty"),
        (["top_k=5"], "top_k"),
    ],
)
def test_settings_that_cannot_run_are_refused_before_anything_is_written(
    overrides: list[str], message: str, tmp_path: Path, ppo_recipe: Path
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        describe(load_config(PPOConfig, ppo_recipe, overrides))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda episodes: [math.nan] * len(episodes), "count_spaces"),
        (lambda episodes: [0.0] * (len(episodes) - 1), "count_spaces"),
    ],
)
def test_a_reward_that_fails_is_named_and_once_it_is_mended_the_run_goes_on(
    broken: Callable[[Sequence[Episode]], list[float]],
    message: str,
    ppo_recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = training_processes.count_spaces
    calls = 0

    def breaks_at_the_second(episodes: Sequence[Episode]) -> list[float]:
        nonlocal calls
        calls += 1
        return real(episodes) if calls == 1 else broken(episodes)

    with monkeypatch.context() as patch:
        patch.setattr(training_processes, "count_spaces", breaks_at_the_second)
        with pytest.raises(RewardError, match=message):
            run(ppo_recipe)
    config = run(ppo_recipe)
    assert [line["step"] for line in lines(config)] == [0, 1, 2]
    assert (config.output / "model.safetensors").exists()


def test_a_source_without_held_out_prompts_is_trained_on_and_shows_none(
    ppo_recipe: Path, write_source: Callable[[str, list[object]], Path]
) -> None:
    write_source("few", [{"prompt": [{"role": "user", "content": f"Ask {n}."}]} for n in range(4)])
    config = run(ppo_recipe, "prompts={few: 4}")
    assert lines(config)[0] == {"step": 0, "answers": []}


def test_a_recipe_with_a_remote_engine_trains_through_it(tmp_path: Path, ppo_recipe: Path) -> None:
    local = lines(run(ppo_recipe, "name=local", f"output={tmp_path / 'one'}"))
    with fake_vllm(load_model(tmp_path / "base")) as server:
        remote = ["engine.kind=vllm", f"engine.url={server.url}", "engine.importance_cap=2"]
        config = run(ppo_recipe, "name=remote", f"output={tmp_path / 'two'}", *remote)
    assert server.paths().count("/collective_rpc") == 3  # the first weights and those of two updates
    for line, other in zip(lines(config), local, strict=True):
        assert line.get("length_mean") == other.get("length_mean")
        assert line.get("loss") == pytest.approx(other.get("loss"), abs=1e-4)


def test_25_two_forwards_of_a_model_with_dropout_are_equal_in_training_mode(
    tmp_path: Path, ppo_recipe: Path
) -> None:
    torch.manual_seed(0)
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128, "pad_token_id": 0}
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=300, resid_pdrop=0.5, attn_pdrop=0.5, embd_pdrop=0.5, **shape)
    )
    ids = torch.randint(300, (2, 20))
    model.train()
    assert not torch.equal(model(ids).logits, model(ids).logits)
    model.save_pretrained(tmp_path / "gpt2")
    config = load_config(PPOConfig, ppo_recipe, [f"model={tmp_path / 'gpt2'}"])
    actors = build_actors(config, Parallel())
    networks: list[nn.Module] = [actors.policy, actors.value]
    for network in networks:
        network.train()
        assert torch.equal(network(ids).logits, network(ids).logits)
