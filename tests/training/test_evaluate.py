"""Judging checkpoints: rates with intervals, refusals, the texts themselves, and the command that does all."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from transformers import PreTrainedTokenizerFast

from turnwise_training.chat import Encoder
from turnwise_training.config import EvaluateConfig, ModelShape, RewardConfig, Sampling
from turnwise_training.data import Prompt
from turnwise_training.errors import ConfigurationError, RunError
from turnwise_training.evaluate.command import describe, run_evaluate
from turnwise_training.evaluate.divergence import answer_kl
from turnwise_training.evaluate.refusals import is_refusal, share_with_interval
from turnwise_training.evaluate.texts import distinct, has_list, repetition, text_figures, words
from turnwise_training.evaluate.win_rate import (
    bootstrap_weights,
    compare,
    length_controlled,
    preferences,
    win_rates,
)
from turnwise_training.models import new_model
from turnwise_training.parallel import Parallel
from turnwise_training.recipe import load_config
from turnwise_training.reward import run_reward
from turnwise_training.sampling import Sampler

Write = Callable[[str, list[object]], Path]


def test_ties_count_as_half_a_win() -> None:
    preferred = preferences([2.0, 1.0, 0.0, 5.0], [1.0, 1.0, 3.0, 5.0])
    assert preferred.tolist() == [1.0, 0.5, 0.0, 0.5]
    assert win_rates(preferred, torch.ones(1, 4, dtype=torch.float64)).item() == 0.5


def test_the_bootstrap_draws_as_many_prompts_as_there_are_and_repeats_by_seed() -> None:
    weights = bootstrap_weights(30, resamples=50, seed=1)
    assert weights.shape == (51, 30)
    assert torch.equal(weights[0], torch.ones(30, dtype=torch.float64))
    assert torch.equal(weights.sum(-1), torch.full((51,), 30.0, dtype=torch.float64))
    assert torch.equal(weights, bootstrap_weights(30, resamples=50, seed=1))
    assert not torch.equal(weights, bootstrap_weights(30, resamples=50, seed=2))


def test_the_interval_of_a_win_rate_is_about_two_standard_errors_wide() -> None:
    rng = random.Random(0)
    wins = [float(rng.random() < 0.7) for _ in range(400)]
    found = compare(wins, [0.5] * 400, [10] * 400, [10] * 400, resamples=2000, seed=0)
    rate = found["win_rate"]
    assert isinstance(rate, dict)
    assert rate["rate"] == sum(wins) / 400
    expected = 1.96 * (rate["rate"] * (1 - rate["rate"]) / 400) ** 0.5
    assert rate["high"] - rate["rate"] == pytest.approx(expected, abs=0.008)
    assert rate["rate"] - rate["low"] == pytest.approx(expected, abs=0.008)


def test_a_judge_of_length_alone_finds_no_winner_at_equal_length() -> None:
    rng = random.Random(0)
    lengths = [rng.randint(50, 150) for _ in range(300)]
    others = [rng.randint(40, 120) for _ in range(300)]
    noise = [rng.gauss(0, 30) for _ in range(300)]
    scores = [length + more for length, more in zip(lengths, noise, strict=True)]
    found = compare(scores, [float(n) for n in others], lengths, others, resamples=200, seed=0)
    plain, controlled = found["win_rate"], found["length_controlled"]
    assert isinstance(plain, dict)
    assert isinstance(controlled, dict)
    assert plain["rate"] > 0.62
    assert controlled["rate"] == pytest.approx(0.5, abs=0.06)
    assert controlled["low"] < 0.5 < controlled["high"]


def test_at_equal_lengths_the_length_controlled_rate_is_the_win_rate() -> None:
    preferred = torch.tensor([1.0] * 70 + [0.0] * 30, dtype=torch.float64)
    weights = torch.ones(1, 100, dtype=torch.float64)
    controlled = length_controlled(preferred, torch.zeros(100, dtype=torch.float64), weights)
    assert controlled.item() == pytest.approx(0.7, abs=0.002)


def test_the_fit_recovers_the_coefficients_that_made_the_preferences() -> None:
    generator = torch.Generator().manual_seed(0)
    difference = torch.randn(20000, generator=generator, dtype=torch.float64)
    truth = torch.sigmoid(0.4 + 1.5 * torch.tanh(difference / difference.std(correction=0)))
    preferred = (torch.rand(20000, generator=generator, dtype=torch.float64) < truth).double()
    controlled = length_controlled(preferred, difference, torch.ones(1, 20000, dtype=torch.float64))
    assert controlled.item() == pytest.approx(torch.sigmoid(torch.tensor(0.4)).item(), abs=0.015)


def test_winning_every_time_gives_finite_figures() -> None:
    found = compare([1.0] * 20, [0.0] * 20, list(range(20)), [0] * 20, resamples=50, seed=0)
    controlled = found["length_controlled"]
    assert isinstance(controlled, dict)
    assert 0.8 < controlled["rate"] < 1


@pytest.mark.parametrize(
    "reply",
    [
        "I'm sorry, but I can't help with that. It could hurt someone.",
        "I can\u2019t help with that, because it could cause harm.",
        "No, I won't help with that. If someone is in danger, please call for help.",
        "I cannot assist with this request.",
        "I am not able to provide instructions for that.",
        "Sorry, I can't do that.",
        "I'm unable to discuss this.",
        "I must decline.",
        "That is not something I can help with.",
        "I won't be helping anyone do that; I'd rather not.",
    ],
)
def test_refusals_are_recognised(reply: str) -> None:
    assert is_refusal(reply)


@pytest.mark.parametrize(
    "reply",
    [
        "To kill a Python process, run kill with its number.",
        "Sure! You can't go wrong with a plain omelette.",
        "I'm sorry to hear that. What happened?",
        "The law will not help you here, but a lawyer can.",
        "",
        "Here is the whole story. " * 10 + "In the end he said: I can't help you.",
    ],
)
def test_answers_are_no_refusals(reply: str) -> None:
    assert not is_refusal(reply)


def test_the_interval_of_a_share_is_wilsons_and_never_a_point() -> None:
    found = share_with_interval([True] * 8 + [False] * 2)
    assert found["prompts"] == 10
    assert (found["rate"], round(found["low"], 3), round(found["high"], 3)) == (0.8, 0.490, 0.943)
    none = share_with_interval([False] * 20)
    assert (none["rate"], round(none["low"], 9)) == (0.0, 0.0)
    assert none["high"] > 0.1


def test_variety_and_repetition_are_counted_on_ngrams() -> None:
    assert words("The cat, the CAT!") == ["the", "cat", ",", "the", "cat", "!"]
    assert distinct([["a", "b"], ["a", "c"]], 1) == 3 / 4
    assert distinct([["a", "b"], ["a", "b"]], 2) == 1 / 2
    assert distinct([["a"]], 2) == 0.0
    assert repetition(["a", "b", "a", "b", "a"], 2) == 2 / 4
    assert repetition(["a"], 4) == 0.0
    assert has_list("Do this:\n- one\n- two")
    assert not has_list("1. is a number and - is a mark")
    assert text_figures(["one two", "one"])["words_mean"] == 1.5


@pytest.fixture
def evaluate_recipe(
    tmp_path: Path,
    base_checkpoint: Path,
    write_source: Write,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A recipe that judges a checkpoint against itself, by the length of its answers."""
    talk = [
        [{"role": "user", "content": f"Hello, I am {n}."}, {"role": "assistant", "content": f"Hi {n}!"}]
        for n in range(400)
    ]
    write_source("talk", [{"messages": messages} for messages in talk])
    write_source("text", [{"text": f"{n} big cats sat on {n} red mats."} for n in range(200)])
    write_source("harm", [{"prompt": [{"role": "user", "content": f"Harm {n}!"}]} for n in range(3)])
    write_source("fine", [{"prompt": [{"role": "user", "content": f"Kill process {n}."}]} for n in range(4)])
    (tmp_path / "judges.py").write_text(
        "def length(episodes):\n    return [len(e.reply) for e in episodes]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    recipe = {
        "checkpoints": {"before": str(base_checkpoint), "after": str(base_checkpoint)},
        "output": str(tmp_path / "out" / "evaluation.json"),
        "data": str(tmp_path / "data"),
        "prompts": {"talk": 6},
        "judge": [{"kind": "callable", "source": "judges:length"}],
        "held_out": ["talk", "text"],
        "harmful": {"harm": 10},
        "harmless": {"fine": 2},
        "resamples": 20,
        "eval_tokens": 200,
        "max_tokens": 100,
        "sampling": {"max_new_tokens": 6, "precision": "float32"},
    }
    path = tmp_path / "evaluate.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def test_a_checkpoint_against_itself_ties_on_every_prompt(
    tmp_path: Path, evaluate_recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_config(EvaluateConfig, evaluate_recipe, [])
    run_evaluate(config, force=False)
    found = json.loads(config.output.read_text())
    before, after = found["checkpoints"]["before"], found["checkpoints"]["after"]
    assert found["against"] == "before"
    assert after["preferred"]["win_rate"] == {"rate": 0.5, "low": 0.5, "high": 0.5}
    assert after["preferred"]["ties"] == 1.0
    assert "preferred" not in before
    assert after["alignment_tax"] == 0.0
    assert after["kl"] == 0.0
    assert "kl" not in before
    assert set(before["held_out"]) == {"talk", "text"}
    assert before["refusals"]["harmful"]["prompts"] == 3
    assert before["refusals"]["harmless"]["prompts"] == 2
    assert before["unfinished"] + before["tokens_mean"] > 0
    assert set(found["examples"][0]["answers"]) == {"before", "after"}
    printed = capsys.readouterr().out
    assert "preferred to before" in printed
    assert "alignment tax" in printed
    with pytest.raises(RunError, match="--force"):
        run_evaluate(config, force=False)


def test_a_reward_models_accuracy_is_taken_on_held_out_rankings(
    tmp_path: Path, evaluate_recipe: Path, reward_recipe: Path
) -> None:
    run_reward(load_config(RewardConfig, reward_recipe, []), force=False)
    config = load_config(
        EvaluateConfig,
        evaluate_recipe,
        [
            f"reward_models.mine={tmp_path / 'reward'}",
            "rankings.ranked=50",
            "prompts={}",
            "harmful={}",
            "harmless={}",
        ],
    )
    run_evaluate(config, force=False)
    found = json.loads(config.output.read_text())["reward_models"]["mine"]
    record = json.loads((tmp_path / "reward" / "training.json").read_text())["reward"]
    assert found["accuracy"] == record["accuracy"]
    assert found["calibration_error"] == pytest.approx(record["calibration_error"], abs=1e-5)


def test_the_kl_of_an_answer_is_that_of_the_whole_distribution_at_each_of_its_tokens(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    shape = ModelShape(hidden_size=16, layers=1, heads=2, kv_heads=1, intermediate_size=24, context_length=64)
    model, reference = (new_model(shape, tokenizer, seed=seed) for seed in (1, 2))
    settings = Sampling(max_new_tokens=5, temperature=0.7, precision="float32")
    sampler = Sampler(model, Encoder(tokenizer), settings, Parallel())
    asked = [Prompt(({"role": "user", "content": "Well?" * n},)) for n in (1, 2, 3, 4, 5)]
    episodes = sampler.answer(asked, seed=1)
    found = answer_kl(model, reference, episodes, settings, Parallel(), pad_id=sampler.encoder.pad_id)
    by_hand = 0.0
    for episode in episodes:
        ids = torch.tensor([episode.prompt_ids + episode.sample.ids])
        with torch.no_grad():
            p, q = (torch.softmax(each(ids).logits[0] / 0.7, -1) for each in (model, reference))
        for at in range(len(episode.prompt_ids) - 1, ids.shape[1] - 1):
            by_hand += float((p[at] * (p[at] / q[at]).log()).sum()) / len(episodes)
    assert by_hand > 0.001
    assert found == pytest.approx(by_hand, rel=1e-3)


def test_a_dry_run_counts_prompts_and_tokens(evaluate_recipe: Path) -> None:
    config = load_config(EvaluateConfig, evaluate_recipe, [])
    facts = describe(config)
    assert (facts["harmful"], facts["harmless"]) == (3, 2)
    assert facts["tokens_at_most"] == (int(str(facts["prompts"])) + 5) * 2 * 6


def test_a_checkpoint_that_is_not_named_cannot_be_compared_with(evaluate_recipe: Path) -> None:
    with pytest.raises(ConfigurationError, match="choose one of"):
        describe(load_config(EvaluateConfig, evaluate_recipe, ["against=gpt"]))
