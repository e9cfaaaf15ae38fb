"""The reward stage: from rankings to a sequence classifier that scores alike everywhere."""

import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from turnwise_training.chat import Encoder, load_tokenizer
from turnwise_training.config import RewardConfig
from turnwise_training.errors import ConfigurationError, DataError
from turnwise_training.loop import accumulate
from turnwise_training.models import last_scores, load_reward_model, new_reward_model, token_scores
from turnwise_training.parallel import Parallel
from turnwise_training.ranked import Order, RankedPrompt
from turnwise_training.recipe import load_config
from turnwise_training.reward import describe, prompt_loss, reward_loss, run_reward
from turnwise_training.reward_data import Plan, make_plan, read_demonstrations
from turnwise_training.scoring import batch_scores, score_ids

Write = Callable[[str, list[object]], Path]


def train_reward(recipe: Path, *overrides: str) -> RewardConfig:
    config = load_config(RewardConfig, recipe, overrides)
    run_reward(config, force=True)
    return config


def plan_of(recipe: Path, *overrides: str) -> Plan:
    config = load_config(RewardConfig, recipe, overrides)
    return make_plan(config, Encoder(load_tokenizer(config.model)))


def comparison(prompt: str, chosen: str, rejected: str, **columns: object) -> dict[str, object]:
    completions = [{"content": chosen, "rank": 1}, {"content": rejected, "rank": 2}]
    return {"prompt": [{"role": "user", "content": prompt}], "completions": completions, **columns}


@pytest.fixture
def gpt2_checkpoint(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A tiny model with absolute positions and dropout."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=128,
        n_embd=32,
        n_layer=2,
        n_head=2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    folder = tmp_path / "gpt2"
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_stage_ends_in_a_sequence_classifier_that_keeps_the_contract(
    tmp_path: Path, reward_recipe: Path
) -> None:
    config = train_reward(reward_recipe)
    folder = tmp_path / "reward"
    bare = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "chat_template.jinja",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "training.json",
    ]
    assert bare.dtype == torch.float32
    assert bare.config.num_labels == 1
    assert bare.config.pad_token_id == tokenizer.pad_token_id
    plan = plan_of(reward_recipe)
    answers = plan.train[0].answers
    padded = tokenizer.pad({"input_ids": answers}, return_tensors="pt")
    expected = bare(**padded).logits[:, 0] * bare.config.reward_scale + bare.config.reward_bias
    scores = score_ids(load_reward_model(folder), answers)
    assert scores == pytest.approx(expected.tolist(), abs=1e-5)
    record = json.loads((folder / "training.json").read_text())
    assert record["stage"] == "reward"
    assert record["reward"]["accuracy"]["share"] > 0.8
    assert set(record["data_sha256"]) == {"ranked", "shown"}
    assert "ordered as the labelers did" in (folder / "README.md").read_text()
    log = [json.loads(line) for line in (tmp_path / "runs/rm/log.jsonl").read_text().splitlines()]
    assert log[-1] == {"step": 6, "held_out": record["reward"]}
    assert [line["prompts"] for line in log[:-1]] == [6, 7, 7] * config.epochs


def test_training_lowers_the_loss_and_orders_unseen_answers(tmp_path: Path, reward_recipe: Path) -> None:
    train_reward(reward_recipe, "epochs=6", "optimization.learning_rate=0.01")
    log = [json.loads(line) for line in (tmp_path / "runs/rm/log.jsonl").read_text().splitlines()]
    assert log[-2]["loss"] < 0.3 * log[0]["loss"]
    assert log[-1]["held_out"]["accuracy"]["share"] > 0.9


def test_08_a_prompts_loss_is_the_mean_over_the_pairs_of_all_its_rankings() -> None:
    scores = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    prompt = RankedPrompt(
        "s",
        [[1], [2], [3]],
        [None] * 3,
        [Order([0, 1], [1, 2], 0.0, "a"), Order([2, 0, 1], [1, 2, 2], 0.5, "b")],
    )
    pairs = [(0, 1, 0.0), (2, 0, 0.5), (2, 1, 0.5)]
    logs = [torch.sigmoid(scores[a] - scores[b] - margin).log() for a, b, margin in pairs]
    assert float(prompt_loss(scores, prompt)) == pytest.approx(-float(sum(logs)) / 3, abs=1e-12)


@pytest.mark.parametrize("start", ["base_checkpoint", "gpt2_checkpoint"])
def test_09_micro_batches_never_change_the_gradient(
    start: str, reward_recipe: Path, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(start)
    gradients = []
    for micro_tokens in (1, 10**6):
        plan = plan_of(reward_recipe)
        batch = next(plan.batches(seed=1, micro_tokens=micro_tokens))
        assert len(batch.micros) == (6 if micro_tokens == 1 else 1)
        model = new_reward_model(folder, seed=1).double().train()
        accumulate(reward_loss(model, precision="float32"), batch, Parallel())
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for one, whole in zip(*gradients, strict=True):
        torch.testing.assert_close(one, whole, rtol=0, atol=1e-10)


def test_13_the_head_is_drawn_with_deviation_one_over_root_d_plus_one(base_checkpoint: Path) -> None:
    heads = [new_reward_model(base_checkpoint, seed=seed).score.weight for seed in range(40)]
    drawn = torch.cat(heads).detach()
    wanted = (1 / (32 + 1)) ** 0.5
    assert abs(float(drawn.std()) - wanted) < 3 * wanted / (2 * drawn.numel()) ** 0.5
    assert abs(float(drawn.mean())) < 3 * wanted / drawn.numel() ** 0.5


def test_13_a_value_model_from_a_reward_model_gives_its_score_at_the_end(
    tmp_path: Path, reward_recipe: Path
) -> None:
    train_reward(reward_recipe)
    model = load_reward_model(tmp_path / "reward")
    ids = plan_of(reward_recipe).train[0].answers[0]
    tokens = torch.tensor([ids])
    with torch.no_grad():
        values = token_scores(model, tokens, torch.ones_like(tokens))
    assert float(values[0, -1]) == pytest.approx(score_ids(model, [ids])[0], abs=1e-6)


@pytest.mark.parametrize("start", ["base_checkpoint", "gpt2_checkpoint"])
def test_14_demonstrations_score_zero_on_average_after_save_and_load(
    start: str, tmp_path: Path, reward_recipe: Path, request: pytest.FixtureRequest
) -> None:
    config = train_reward(reward_recipe, f"model={request.getfixturevalue(start)}")
    model = load_reward_model(tmp_path / "reward")
    demonstrations = read_demonstrations(config, Encoder(load_tokenizer(config.model)))
    scores = score_ids(model, demonstrations)
    assert len(scores) == 15
    assert abs(sum(scores) / len(scores)) < 1e-5
    assert max(map(abs, scores)) > 1e-4


@pytest.mark.parametrize("start", ["base_checkpoint", "gpt2_checkpoint"])
def test_14_a_score_depends_on_neither_batch_nor_padding_side(
    start: str, reward_recipe: Path, request: pytest.FixtureRequest
) -> None:
    model = new_reward_model(request.getfixturevalue(start), seed=1).eval()
    answers = [ids for prompt in plan_of(reward_recipe).train for ids in prompt.answers]
    alone = [score_ids(model, [ids])[0] for ids in answers]
    assert score_ids(model, answers, micro_tokens=500) == pytest.approx(alone, abs=1e-5)
    tokens = torch.full((len(answers), 90), model.config.pad_token_id)
    attend = torch.zeros_like(tokens)
    for row, ids in enumerate(answers):
        tokens[row, : len(ids)] = torch.tensor(ids)
        attend[row, : len(ids)] = 1
    with torch.no_grad():
        assert last_scores(model, tokens, attend).tolist() == pytest.approx(alone, abs=1e-5)


def test_25_dropout_is_off_in_training_mode(gpt2_checkpoint: Path) -> None:
    model: PreTrainedModel = new_reward_model(gpt2_checkpoint, seed=1).train()
    ids = [list(range(20, 60))]
    assert torch.equal(batch_scores(model, ids), batch_scores(model, ids))


def test_a_score_is_read_at_the_end_token(reward_recipe: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    for prompt in plan_of(reward_recipe).train:
        assert {ids[-1] for ids in prompt.answers} == {tokenizer.eos_token_id}


def test_each_answer_to_a_prompt_is_read_once(reward_recipe: Path, write_source: Write) -> None:
    rows: list[object] = [comparison("Who?", "The cat.", worse) for worse in ("Mat.", "Old.", "Red.")]
    write_source("pairs", [*rows, comparison("Who?", "Mat.", "Red.", labeler="b")])
    plan = plan_of(reward_recipe, "rankings={pairs: 9}")
    (prompt,) = plan.train
    assert len(prompt.answers) == 4
    assert prompt.pairs == 4


@pytest.mark.parametrize("epochs", [1, 2])
def test_34_every_epoch_reads_every_prompt_once_in_a_seeded_order(reward_recipe: Path, epochs: int) -> None:
    def orders(seed: int) -> list[list[int]]:
        plan = plan_of(reward_recipe, f"epochs={epochs}")
        read = [
            [plan.train.index(prompt) for micro in batch.micros for prompt in micro]
            for batch in plan.batches(seed=seed, micro_tokens=1)
        ]
        for epoch in range(epochs):
            assert sorted(chain(*read[3 * epoch : 3 * epoch + 3])) == list(range(20))
        return read

    assert orders(1) == orders(1) != orders(2)


def test_folds_are_disjoint_and_complete(reward_recipe: Path) -> None:
    def prompts(fold: str) -> set[tuple[int, ...]]:
        plan = plan_of(reward_recipe, f"fold={fold}", "rankings={ranked: 100}")
        return {tuple(prompt.answers[0]) for prompt in plan.train}

    first, second = prompts("[0, 2]"), prompts("[1, 2]")
    assert first
    assert second
    assert not first & second
    assert first | second == prompts("[0, 1]")


def test_a_fold_is_judged_on_prompts_of_the_next_one(reward_recipe: Path) -> None:
    plan = plan_of(reward_recipe, "fold=[0, 2]", "rankings={ranked: 100}")
    other = plan_of(reward_recipe, "fold=[1, 2]", "rankings={ranked: 100}")
    whole = plan_of(reward_recipe, "rankings={ranked: 100}")
    assert len(plan.held_out) == len(whole.held_out) + len(other.train)
    assert not [prompt for prompt in plan.held_out if prompt in plan.train]


def test_long_rankings_and_ties_are_left_out_and_counted(reward_recipe: Path, write_source: Write) -> None:
    tie: Any = comparison("Who?", "Cat.", "Dog.")
    tie["completions"][1]["rank"] = 1
    write_source("few", [tie, comparison("Who?", "Cat." * 99, "Dog."), comparison("Who?", "Cat.", "Dog.")])
    facts = describe(load_config(RewardConfig, reward_recipe, ["rankings={few: 9}", "batch=1", "epochs=3"]))
    assert facts["dropped_rankings"] == {"too_long": 1, "without_pair": 1}
    assert facts["prompts"] == facts["pairs"] == 1
    assert facts["steps"] == 3
    with pytest.raises(DataError, match="no ranking to train on"):
        plan_of(reward_recipe, "rankings={few: 9}", "max_tokens=3")


def test_a_margin_is_the_rows_or_else_the_recipes(reward_recipe: Path, write_source: Write) -> None:
    write_source("few", [comparison("Who?", "A", "B", margin=2.0), comparison("Who?", "A", "B")])
    (prompt,) = plan_of(reward_recipe, "rankings={few: 9}", "margin=0.5").train
    assert sorted(order.margin for order in prompt.orders) == [0.5, 2.0]


def test_a_source_of_another_kind_is_refused(reward_recipe: Path) -> None:
    with pytest.raises(DataError, match="reads rankings, found conversations"):
        plan_of(reward_recipe, "rankings={shown: 9}")


def test_answers_over_the_models_context_are_refused(reward_recipe: Path) -> None:
    with pytest.raises(ConfigurationError, match="max_tokens 999 is over the model's context of 128"):
        describe(load_config(RewardConfig, reward_recipe, ["max_tokens=999"]))


def test_33_a_run_ends_in_the_same_scores_at_any_micro_batch(tmp_path: Path, reward_recipe: Path) -> None:
    scores = []
    for micro_tokens in (100, 5000):
        folder = tmp_path / f"out{micro_tokens}"
        overrides = [f"name=m{micro_tokens}", f"output={folder}", f"micro_tokens={micro_tokens}"]
        train_reward(reward_recipe, "precision=float32", *overrides)
        answers = plan_of(reward_recipe).train[0].answers
        scores.append(score_ids(load_reward_model(folder), answers))
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_a_dry_run_prints_sizes_and_writes_nothing(tmp_path: Path, reward_recipe: Path) -> None:
    facts = describe(load_config(RewardConfig, reward_recipe, []))
    assert facts["steps"] == 6
    assert facts["prompts"] == 20
    assert facts["pairs"] == 55
    assert not (tmp_path / "runs").exists()
