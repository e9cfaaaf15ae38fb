"""The pretraining mix: its gradient in PPO's buffer, and rows that depend on the step and the seed alone."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from support.tiny_ppo import CONFIG, tiny_actors, tiny_learner
from turnwise_training.chat import Encoder
from turnwise_training.config import Ptx
from turnwise_training.loop import Batch, accumulate
from turnwise_training.parallel import Parallel
from turnwise_training.ptx import BLOCK, PretrainingMix

SETTINGS = Ptx(mix={"text": 1.0}, coef=2.5, rows=3, seq_len=16)
Maker = Callable[..., PretrainingMix]


@pytest.fixture
def make_mix(write_source: Callable[[str, list[object]], Path], tokenizer: PreTrainedTokenizerFast) -> Maker:
    """Make a mix over some text for a model."""
    data = write_source("text", [{"text": f"{n} The old cat sat on mat {n * n}."} for n in range(40)]).parent

    def make(model: PreTrainedModel, *, settings: Ptx = SETTINGS, seed: int = 1) -> PretrainingMix:
        config = replace(CONFIG, data=data, seed=seed, micro=2)
        return PretrainingMix(config, settings, model, Encoder(tokenizer), Parallel())

    return make


def gradients(model: PreTrainedModel) -> list[Tensor]:
    found = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad()
    return found


def test_10_the_gradient_of_both_is_the_sum_of_ppo_s_and_coef_times_that_of_the_mean_nll(
    make_mix: Maker, tokenizer: PreTrainedTokenizerFast
) -> None:
    actors = tiny_actors("gpt2", dtype=torch.float64)  # Llama's norms work in float32 whatever is asked
    policy = actors.policy
    mix = make_mix(policy)
    learner = tiny_learner(Encoder(tokenizer), actors=actors, ptx=mix)
    episodes = learner._roll_out(0)
    experience = learner._look_back(0, episodes, learner._scores(learner.reward, episodes))
    count = int(experience.acted.sum())
    batch = Batch([[0, 1, 2, 3], [4, 5, 6, 7]], count, count)

    accumulate(partial(learner._micro_loss, experience, {}), batch, learner.parallel)
    ppo = gradients(policy)
    make_mix(policy, settings=replace(SETTINGS, coef=1.0)).add_gradient(5, policy)
    text = gradients(policy)
    rows = mix.rows(5)
    logits = policy(rows.ids).logits
    nll = functional.cross_entropy(logits.flatten(0, 1), rows.labels.flatten())
    nll.backward()  # type: ignore[no-untyped-call]
    plain = gradients(policy)
    accumulate(partial(learner._micro_loss, experience, {}), batch, learner.parallel)
    figures = mix.add_gradient(5, policy)
    both = gradients(policy)

    for total, own, other, slow in zip(both, ppo, text, plain, strict=True):
        assert torch.allclose(total, own + 2.5 * other, atol=1e-10, rtol=0)
        assert torch.allclose(other, slow, atol=1e-10, rtol=0)
    norms = [
        float(torch.nn.utils.get_total_norm(each)) for each in (ppo, [2.5 * gradient for gradient in text])
    ]
    assert figures["ptx_nll"] == pytest.approx(nll.item())
    assert figures["ptx_grad_norm"] == pytest.approx(norms[1])
    assert figures["ptx_grad_share"] == pytest.approx(norms[1] / sum(norms))


def test_10_with_the_mix_there_is_still_one_step_a_minibatch_and_it_is_logged(
    make_mix: Maker, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    actors = tiny_actors("llama")
    mix = make_mix(actors.policy)
    learner = tiny_learner(Encoder(tokenizer), actors=actors, ptx=mix)
    asked: list[int] = []
    real = mix.add_gradient

    def add_gradient(step: int, policy: PreTrainedModel) -> dict[str, float]:
        asked.append(step)
        return real(step, policy)

    monkeypatch.setattr(mix, "add_gradient", add_gradient)
    for iteration in range(2):
        figures, _ = learner.iterate(iteration)
    assert asked == [0, 1, 2, 3]
    assert figures["ptx_nll"] > 0
    assert 0 < figures["ptx_grad_share"] < 1
    states = learner.policy_optimizers.state_dict()["adamw"]["state"].values()
    assert {int(state["step"]) for state in states} == {4}


def test_the_mix_alone_lowers_the_loss_of_its_text(
    make_mix: Maker, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Where PPO has nothing to learn, its own gradient is 0 and the mix has the whole share."""
    actors = tiny_actors("llama", head=0.0, bias=0.7)
    learner = tiny_learner(
        Encoder(tokenizer),
        actors=actors,
        score=lambda ids: 0.7,
        ptx=make_mix(actors.policy),
        beta=0.0,
        missing_eos_penalty=0.0,
    )
    lines = [learner.iterate(iteration)[0] for iteration in range(3)]
    assert lines[0]["ptx_grad_share"] == pytest.approx(1, abs=1e-3)
    assert lines[2]["ptx_nll"] < lines[0]["ptx_nll"]


def test_the_rows_of_a_step_depend_on_the_step_and_the_seed_alone(make_mix: Maker) -> None:
    model = tiny_actors("llama").policy
    mix, again, other = make_mix(model), make_mix(model), make_mix(model, seed=2)
    steps = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1]
    seen = {step: mix.rows(step).ids for step in steps}
    assert all(tuple(ids.shape) == (3, 16) for ids in seen.values())
    for step in reversed(steps):
        assert torch.equal(again.rows(step).ids, seen[step])
        assert not torch.equal(other.rows(step).ids, seen[step])
    assert len({tuple(ids.flatten().tolist()) for ids in seen.values()}) == len(steps)
