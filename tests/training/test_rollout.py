"""Sampling: the distribution, its independence of the batch, its agreement with the training forward."""

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from support.tiny_models import Family, tiny_model
from support.tiny_ppo import END_IDS, FAMILIES, tiny_engine, tiny_learner, tiny_prompts
from turnwise_training.chat import Encoder
from turnwise_training.episodes import Answers, Sample, lay_out
from turnwise_training.losses import chosen_log_probs
from turnwise_training.models import answer_logits
from turnwise_training.rollout import TransformersEngine, pick, rollout_key

PROMPTS = [prompt.ids for prompt in tiny_prompts()]
KEYS = [rollout_key(3, row) for row in range(len(PROMPTS))]


def answers_of(engine: TransformersEngine, rows: list[int], *, temperature: float = 1.0) -> list[Sample]:
    return engine.sample(
        [PROMPTS[row] for row in rows],
        [KEYS[row] for row in rows],
        max_new_tokens=10,
        temperature=temperature,
    )


def laid_out(samples: list[Sample]) -> tuple[Answers, torch.Tensor]:
    """Return the samples of all prompts as tensors, and the engine's log-probabilities [B, T]."""
    answers = lay_out(PROMPTS, [sample.ids for sample in samples], pad_id=0)
    engine_logp = torch.zeros(answers.acted.shape)
    for row, sample in enumerate(samples):
        engine_logp[row, : len(sample.ids)] = torch.tensor(sample.log_probs)
    return answers, engine_logp


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_15_generation_finds_its_tokens_as_likely_as_the_training_forward_does(
    family: Family, temperature: float
) -> None:
    model = tiny_model(family)
    samples = answers_of(tiny_engine(model, batch=5), list(range(12)), temperature=temperature)
    assert len({len(sample.ids) for sample in samples}) > 3
    answers, engine_logp = laid_out(samples)
    logits = answer_logits(model, answers.tokens, answers.attend, answer_width=answers.width)
    logp = chosen_log_probs(logits, answers.replies, temperature=temperature)
    assert float((logp - engine_logp)[answers.acted].abs().max()) <= 1e-4


@torch.no_grad()
def test_15_without_position_ids_a_model_of_absolute_positions_would_be_wrong() -> None:
    model = tiny_model("gpt2")
    answers, engine_logp = laid_out(answers_of(tiny_engine(model), list(range(12))))
    logits = model(input_ids=answers.tokens, attention_mask=answers.attend.long()).logits
    logp = chosen_log_probs(logits[:, -answers.width - 1 : -1], answers.replies, temperature=1.0)
    assert float((logp - engine_logp)[answers.acted].abs().max()) > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_keys_give_equal_answers_in_any_batch_and_order(family: Family) -> None:
    model = tiny_model(family)
    together = answers_of(tiny_engine(model, batch=12), list(range(12)))
    order = [5, 0, 11, 3, 8, 1, 10, 2, 9, 4, 7, 6]
    shuffled = answers_of(tiny_engine(model, batch=3), order)
    alone = [answers_of(tiny_engine(model), [row])[0] for row in range(12)]
    for row in range(12):
        assert alone[row].ids == together[row].ids == shuffled[order.index(row)].ids
        assert alone[row].ended == together[row].ended


def test_other_keys_give_other_answers() -> None:
    engine = tiny_engine(tiny_model("llama"))
    first, second = engine.sample([PROMPTS[0]] * 2, KEYS[:2], max_new_tokens=10, temperature=1.0)
    assert first.ids != second.ids


def test_an_answer_ends_with_its_first_end_token_or_at_the_limit() -> None:
    samples = answers_of(tiny_engine(tiny_model("llama")), list(range(12)))
    for sample in samples:
        assert not END_IDS & set(sample.ids[:-1])
        assert sample.ended == (sample.ids[-1] in END_IDS)
        assert sample.ended or len(sample.ids) == 10
        assert len(sample.log_probs) == len(sample.ids)


def test_nothing_to_sample_gives_nothing() -> None:
    assert tiny_engine(tiny_model("llama")).sample([], [], max_new_tokens=3, temperature=1.0) == []


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_pick_follows_the_distribution_at_its_temperature(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, generator=generator) * 2
    count = 40_000
    numbers = torch.rand(count, generator=generator, dtype=torch.float64)
    tokens, log_probs = pick(logits.expand(count, 8), numbers, temperature=temperature)
    wanted = torch.softmax(logits / temperature, -1)
    seen = torch.bincount(tokens, minlength=8)
    chi_square = float(((seen - count * wanted) ** 2 / (count * wanted)).sum())
    assert chi_square < 24.3  # 7 degrees of freedom: exceeded once in a thousand seeds
    assert torch.allclose(log_probs, wanted.log()[tokens], atol=1e-6)


def test_pick_never_takes_a_token_without_probability() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]]).expand(3, 5)
    tokens, _ = pick(logits, torch.tensor([0.0, 0.5, 1 - 1e-16], dtype=torch.float64), temperature=1.0)
    assert tokens.tolist() == [1, 3, 3]


def test_a_refreshed_engine_samples_from_the_new_weights() -> None:
    policy = tiny_model("llama")
    engine = tiny_engine(policy, precision="bfloat16")
    before = answers_of(engine, [0, 1, 2])

    def shifted(model: PreTrainedModel) -> None:
        with torch.no_grad():
            model.lm_head.weight.copy_(model.lm_head.weight.roll(7, 0))

    shifted(policy)
    assert answers_of(engine, [0, 1, 2]) == before
    engine.refresh(policy)
    assert answers_of(engine, [0, 1, 2]) == answers_of(tiny_engine(policy, precision="bfloat16"), [0, 1, 2])
    assert answers_of(engine, [0, 1, 2]) != before


def test_the_learner_samples_from_the_weights_it_has_just_updated(tokenizer: PreTrainedTokenizerFast) -> None:
    learner = tiny_learner(Encoder(tokenizer), precision="bfloat16")
    learner.iterate(0)
    fresh = tiny_engine(learner.actors.language_model, precision="bfloat16")
    used = learner.engine.sample(PROMPTS, KEYS, max_new_tokens=5, temperature=1.0)
    assert used == fresh.sample(PROMPTS, KEYS, max_new_tokens=5, temperature=1.0)


def test_keys_differ_with_each_of_their_parts_and_fit_63_bits() -> None:
    keys = [
        rollout_key(seed, iteration, row) for seed in (1, 2) for iteration in (-1, 0, 1) for row in range(50)
    ]
    assert len(set(keys)) == len(keys)
    assert all(0 <= key < 2**63 for key in keys)
