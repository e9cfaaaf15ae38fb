"""PPO's invariants on tiny models: what must be exact, what must not move, and what must not matter."""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from support.tiny_models import Family
from support.tiny_ppo import FAMILIES, OPTIMIZATION, tiny_actors, tiny_learner, tiny_value_model
from turnwise_training import ppo as ppo_module
from turnwise_training.chat import Encoder
from turnwise_training.config import AdaptiveKL, EngineSettings, Precision
from turnwise_training.episodes import Episode, Experience, Sample, engine_log_probs, lay_out
from turnwise_training.loop import Batch, accumulate
from turnwise_training.optimizers import Optimizers
from turnwise_training.ppo import PPO, Ratios
from turnwise_training.scoring import score_ids

Gradients = dict[str, Tensor]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


@pytest.fixture
def encoder(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    """An encoder of one's own: tests may change its padding."""
    return Encoder(tokenizer)


def experience_of(learner: PPO, iteration: int = 0) -> Experience:
    """Return what the first three phases of an iteration give."""
    episodes = learner._roll_out(iteration)
    return learner._look_back(iteration, episodes, learner._scores(learner.reward, episodes))


def gradients(
    learner: PPO, experience: Experience, micros: list[list[int]], ratios: Ratios | None = None
) -> tuple[float, Gradients]:
    """Return the mean loss of one minibatch made of `micros`, and the gradients of both networks."""
    count = int(experience.acted[[row for micro in micros for row in micro]].sum())
    work = partial(learner._micro_loss, experience, {} if ratios is None else ratios)
    loss = accumulate(work, Batch(micros, count, count), learner.parallel)
    return loss, take_gradients(learner)


def take_gradients(learner: PPO) -> Gradients:
    """Return the gradients of both networks and clear them."""
    found: Gradients = {}
    for part, model in (("policy", learner.actors.policy), ("value", learner.actors.value)):
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                found[f"{part}.{name}"] = parameter.grad.clone()
        model.zero_grad()
    return found


@torch.no_grad()
def furthest(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> float:
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).abs().max()) for name in left)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def digest(model: nn.Module) -> str:
    content = b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("family", FAMILIES)
def test_09_the_gradient_of_micro_batches_of_one_is_that_of_the_whole_minibatch(
    family: Family, encoder: Encoder
) -> None:
    learner = tiny_learner(encoder, actors=tiny_actors(family, dtype=torch.float64))
    experience = experience_of(learner)
    assert len(set(experience.acted.sum(-1).tolist())) > 2
    whole, together = gradients(learner, experience, [[0, 1, 2, 3, 4, 5, 6, 7]])
    split, apart = gradients(learner, experience, [[row] for row in range(8)])
    assert split == pytest.approx(whole, abs=1e-10)
    assert furthest(together, apart) < 1e-10


def test_10_each_network_takes_one_optimizer_step_a_minibatch(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = tiny_learner(encoder, batch=8, minibatch=3, micro=2, inner_epochs=2)
    taken: list[Optimizers] = []
    real = Optimizers.step

    def step(self: Optimizers, share: float) -> None:
        taken.append(self)
        real(self, share)

    monkeypatch.setattr(Optimizers, "step", step)
    learner.iterate(0)
    assert taken == [learner.policy_optimizers, learner.value_optimizers] * 6


@pytest.mark.parametrize("family", FAMILIES)
def test_16_a_row_alone_and_unpadded_is_as_in_the_padded_batch(family: Family, encoder: Encoder) -> None:
    learner = tiny_learner(encoder, family=family)
    episodes = learner._roll_out(0)
    together = learner._run_models(episodes, list(range(8)))
    for row, episode in enumerate(episodes):
        length = len(episode.sample.ids)
        alone = learner._run_models(episodes, [row])[:, 0]
        assert torch.allclose(together[:, row, :length], alone, atol=1e-4)
        assert not together[:, row, length:].any()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_17_the_first_kl_is_exactly_zero(family: Family, precision: Precision, encoder: Encoder) -> None:
    figures, _ = tiny_learner(encoder, family=family, precision=precision).iterate(0)
    assert figures["kl_k1"] == figures["kl_k3"] == figures["kl_token"] == 0.0


@pytest.mark.parametrize("family", FAMILIES)
def test_17_policy_and_reference_are_equal_at_every_width(family: Family, encoder: Encoder) -> None:
    """Narrow answers take other paths through a matrix product than wide ones."""
    actors = tiny_actors(family)
    prompts = [[5, 9, 7, 8], [6] * 9]
    for width in range(1, 8):
        answers = lay_out(prompts, [[3] * width, [4] * width], pad_id=0)
        with torch.no_grad():
            assert torch.equal(actors.policy_logits(answers), actors.reference_logits(answers))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_18_the_first_ratio_is_exactly_one(family: Family, precision: Precision, encoder: Encoder) -> None:
    learner = tiny_learner(encoder, family=family, precision=precision)
    experience = experience_of(learner)
    for micros in learner._minibatches(0, 0, experience.episodes):
        ratios: Ratios = {}
        gradients(learner, experience, micros, ratios)
        assert list(ratios.values()) == [(1.0, 0.0)] * len(micros)


@pytest.mark.parametrize("family", FAMILIES)
def test_18_the_first_ratio_of_other_micro_batches_is_one_to_rounding(
    family: Family, encoder: Encoder
) -> None:
    learner = tiny_learner(encoder, family=family)
    ratios: Ratios = {}
    gradients(learner, experience_of(learner), [[0, 7, 3], [1], [2, 4, 5, 6]], ratios)
    assert max(farthest for farthest, _ in ratios.values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_19_where_every_score_is_the_value_nothing_is_learnt(family: Family, encoder: Encoder) -> None:
    actors = tiny_actors(family, head=0.0, bias=0.7)
    before = copy.deepcopy(actors)
    learner = tiny_learner(encoder, actors=actors, score=lambda ids: 0.7, beta=0.0, missing_eos_penalty=0.0)
    for iteration in range(2):
        learner.iterate(iteration)
    for old, new in ((before.policy, actors.policy), (before.value, actors.value)):
        assert furthest(weights(old), weights(new)) < 1e-7


class ModelScores:
    """Scores answers with a reward model, as a reward of kind `model` does."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        return score_ids(self.model, [each.prompt_ids + each.sample.ids for each in episodes])


@pytest.mark.parametrize("family", FAMILIES)
def test_20_reference_and_reward_model_are_untouched(family: Family, encoder: Encoder) -> None:
    actors = tiny_actors(family)
    learner = tiny_learner(encoder, actors=actors)
    reward_model = tiny_value_model(actors.reference)
    learner.reward = ModelScores(reward_model)
    frozen = (actors.reference, reward_model)
    before = [digest(model) for model in (*frozen, actors.policy, actors.value)]
    for iteration in range(2):
        learner.iterate(iteration)
    after = [digest(model) for model in (*frozen, actors.policy, actors.value)]
    assert after[:2] == before[:2]
    assert not set(after[2:]) & set(before)
    assert all(parameter.grad is None for model in frozen for parameter in model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_21_more_padding_changes_neither_loss_nor_gradient(
    family: Family, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = tiny_learner(encoder, family=family)
    experience = experience_of(learner)
    micros = [[0, 1, 2], [3, 4, 5, 6, 7]]
    loss, narrow = gradients(learner, experience, micros)
    tables = {
        name: functional.pad(getattr(experience, name), (0, 7))
        for name in ("acted", "logp", "ref", "entropy", "values", "advantages", "returns")
    }
    monkeypatch.setattr(ppo_module, "lay_out", partial(lay_out, extra=7))
    padded_loss, wide = gradients(learner, Experience(experience.episodes, **tables), micros)
    assert padded_loss == pytest.approx(loss, abs=1e-6)
    assert furthest(narrow, wide) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_22_a_pad_token_that_ends_turns_as_well_changes_nothing(family: Family, encoder: Encoder) -> None:
    learner = tiny_learner(encoder, family=family)
    end = encoder.turn_end
    learner.prompts = [type(prompt)(prompt.prompt, [5, end, *prompt.ids, end]) for prompt in learner.prompts]
    experience = experience_of(learner)
    assert encoder.pad_id != end
    distinct = gradients(learner, experience, [[0, 1, 2, 3], [4, 5, 6, 7]])
    encoder.pad_id = end
    assert torch.equal(experience_of(learner).advantages, experience.advantages)
    shared = gradients(learner, experience, [[0, 1, 2, 3], [4, 5, 6, 7]])
    assert shared[0] == distinct[0]
    assert furthest(shared[1], distinct[1]) == 0


def test_27_the_penalty_for_not_ending_is_taken_once_and_never_from_an_answer_that_ended_at_the_limit(
    encoder: Encoder,
) -> None:
    learner = tiny_learner(encoder, batch=3, minibatch=3, beta=0.0, lam=1.0, missing_eos_penalty=2.5)
    prompt = learner.prompts[0]
    samples = [
        Sample([100] * 7 + [7], ended=True, log_probs=[0.0] * 8),
        Sample([100] * 8, ended=False, log_probs=[0.0] * 8),
        Sample([100, 7], ended=True, log_probs=[0.0] * 2),
    ]
    episodes = [Episode(prompt.prompt, prompt.ids, sample, "") for sample in samples]
    found = learner._look_back(0, episodes, torch.tensor([1.0, 1.0, 1.0]))
    wanted = [[1.0] * 8, [-1.5] * 8, [1.0] * 2 + [0.0] * 6]  # with lam 1 a return is the sum of what follows
    assert torch.allclose(found.returns, torch.tensor(wanted), atol=1e-6)


@pytest.mark.parametrize("micro", [1, 3, 4])
def test_33_the_size_of_a_micro_batch_never_changes_the_result(micro: int, encoder: Encoder) -> None:
    whole, split = (
        tiny_learner(encoder, actors=tiny_actors("llama", dtype=torch.float64), micro=size)
        for size in (4, micro)
    )
    for iteration in range(2):
        (figures, answers), (others, other_answers) = whole.iterate(iteration), split.iterate(iteration)
        assert [each.sample.ids for each in answers] == [each.sample.ids for each in other_answers]
        assert others == pytest.approx(figures, abs=1e-6)
    assert furthest(weights(whole.actors.policy), weights(split.actors.policy)) < 1e-6
    assert furthest(weights(whole.actors.value), weights(split.actors.value)) < 1e-6


def test_an_engine_of_other_arithmetic_weighs_each_token_by_a_truncated_ratio(encoder: Encoder) -> None:
    plain = tiny_learner(encoder)
    episodes = plain._roll_out(0)
    shifts = torch.tensor([0.05, -0.05]).repeat(4)
    shifted = [
        Episode(
            each.prompt,
            each.prompt_ids,
            Sample(each.sample.ids, each.sample.ended, [p + float(shift) for p in each.sample.log_probs]),
            each.reply,
        )
        for each, shift in zip(episodes, shifts, strict=True)
    ]
    scores = plain._scores(plain.reward, episodes)
    wanted = plain._look_back(0, shifted, scores).advantages
    assert torch.equal(wanted, plain._look_back(0, episodes, scores).advantages)
    capped = tiny_learner(encoder, engine=EngineSettings(importance_cap=1.01))
    found = capped._look_back(0, shifted, scores).advantages
    ratios = torch.exp(-shifts).clamp(max=1.01)
    assert torch.allclose(found, wanted * ratios[:, None], atol=1e-4)
    assert engine_log_probs(shifted).shape == found.shape


def test_the_kl_coefficient_follows_its_target(encoder: Encoder) -> None:
    learner = tiny_learner(encoder, adaptive_kl=AdaptiveKL(target=1.0, horizon=80))
    learner.iterate(0)  # its KL is 0: 20% off at most, for 8 of 80 episodes
    assert learner.beta == pytest.approx(0.02 * (1 - 0.2 * 8 / 80))


def test_each_network_follows_its_own_schedule(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = replace(OPTIMIZATION, schedule="constant", warmup_steps=10)
    value = replace(OPTIMIZATION, schedule="constant", warmup_steps=4)
    learner = tiny_learner(encoder, policy=policy, value=value)
    shares: list[float] = []
    monkeypatch.setattr(Optimizers, "step", lambda self, share: shares.append(share))
    learner.iterate(0)
    assert shares == [0.1, 0.25] * 2


def test_the_exported_average_lags_behind_the_weights(encoder: Encoder) -> None:
    averaged, followed = tiny_learner(encoder, ema=0.9), tiny_learner(encoder, ema=0.0)
    start = weights(averaged.actors.policy)
    for learner in (averaged, followed):
        learner.iterate(0)
        learner.average.copy_to(learner.actors.policy)
    moved = furthest(start, weights(followed.actors.policy))
    assert 0 < furthest(start, weights(averaged.actors.policy)) < 0.2 * moved
