"""A world so small that every answer is enumerated: E[reward], KL and the best any policy can do are exact.

A prompt is four or five different digits and a question mark; a right answer is three of them in ascending order and
the end token, and there are four to ten right answers to a prompt, so that the best policy is no single answer. The
file knows nothing of PPO: it makes a reference policy and measures any other one against it.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedModel

from turnwise_training.episodes import lay_out
from turnwise_training.losses import chosen_log_probs
from turnwise_training.models import answer_logits

PAD, END, ASK = 0, 1, 2
DIGITS = range(3, 11)
VOCABULARY = 11
ANSWER_LENGTH = 4

Family = Literal["llama", "gpt2"]


def gold_reward(prompt: Sequence[int], answer: Sequence[int]) -> float:
    """Return .2 for each digit of the prompt above all before it, -.2 for any other token, and .4 for an end.

    The best is 1, the worst -.8; `answer` stops at its end token, if it has one.
    """
    credit, highest = 0, 0
    for token in answer:
        if token == END:
            credit += 2
            break
        is_next = token in prompt[:-1] and token > highest
        credit += 1 if is_next else -1
        highest = max(highest, token)
    return credit / 5


def make_prompts(*, count: int = 30, seed: int = 0) -> list[list[int]]:
    """Return different prompts of mixed lengths."""
    rng = random.Random(seed)
    prompts: list[list[int]] = []
    while len(prompts) < count:
        prompt = [*rng.sample(DIGITS, 4 + len(prompts) % 2), ASK]
        if prompt not in prompts:
            prompts.append(prompt)
    return prompts


def all_answers() -> tuple[Tensor, Tensor]:
    """Return every answer there is, tokens and `acted`, both [N, T]: any tokens up to an end token or T of them."""
    symbols = [token for token in range(VOCABULARY) if token != END]
    unfinished: list[list[int]] = [[]]
    answers: list[list[int]] = []
    for _ in range(ANSWER_LENGTH):
        answers += [[*begun, END] for begun in unfinished]
        unfinished = [[*begun, token] for begun in unfinished for token in symbols]
    answers += unfinished
    tokens = torch.tensor([[*answer, *[PAD] * (ANSWER_LENGTH - len(answer))] for answer in answers])
    acted = torch.arange(ANSWER_LENGTH) < torch.tensor([[len(answer)] for answer in answers])
    return tokens, acted


@dataclass(frozen=True)
class World:
    """The prompts, the answers and the reward of each answer; X prompts, N answers of at most T tokens."""

    prompts: list[list[int]]
    answers: Tensor
    acted: Tensor
    rewards: Tensor
    """[X, N], float64."""

    @classmethod
    def make(cls, prompts: list[list[int]]) -> "World":
        """Return the world of these prompts under the gold reward."""
        answers, acted = all_answers()
        rewards = [[gold_reward(prompt, answer) for answer in answers.tolist()] for prompt in prompts]
        return cls(prompts, answers, acted, torch.tensor(rewards, dtype=torch.float64))

    @torch.no_grad()
    def log_probs(self, policy: PreTrainedModel, *, temperature: float = 1.0) -> Tensor:
        """Return the exact log-probability [X, N] of every answer, in float64, each prompt alone and unpadded."""
        policy.eval()
        begun, rows = torch.unique(self.answers[:, :-1], dim=0, return_inverse=True)
        wide = torch.nn.functional.pad(begun, (0, 1), value=PAD)  # what stands last predicts nothing
        found = []
        for prompt in self.prompts:
            tokens = torch.cat([torch.tensor(prompt).expand(len(wide), -1), wide], dim=1)
            logits = answer_logits(policy, tokens, torch.ones_like(tokens), answer_width=ANSWER_LENGTH)
            chosen = chosen_log_probs(logits.double()[rows], self.answers, temperature=temperature)
            found.append((chosen * self.acted).sum(-1))
        return torch.stack(found)


def expect(logp: Tensor, values: Tensor) -> float:
    """Return the mean of `values` [X, N] under log-probabilities [X, N], prompts equally likely."""
    return float((logp.exp() * values).sum(-1).mean())


def exact_kl(logp: Tensor, ref: Tensor) -> float:
    """Return the mean over prompts of KL(policy, reference), in nats an answer, from log-probabilities [X, N]."""
    return expect(logp, logp - ref)


def tilt(ref: Tensor, rewards: Tensor, *, beta: float) -> Tensor:
    """Return the log-probabilities [X, N] of the policy that maximises E[reward] - beta * KL.

    It is the reference times exp(reward / beta), and the best of all policies at the KL it has.
    """
    return (ref + rewards / beta).log_softmax(-1)


def penalised(logp: Tensor, ref: Tensor, rewards: Tensor, *, beta: float) -> float:
    """Return J = E[reward] - beta * KL."""
    return expect(logp, rewards) - beta * exact_kl(logp, ref)


def objective(logp: Tensor, ref: Tensor, rewards: Tensor, *, beta: float) -> float:
    """Return (J - J_ref) / (J* - J_ref): 0 for the reference, 1 for the optimum, negative below the reference."""
    start = penalised(ref, ref, rewards, beta=beta)
    best = penalised(tilt(ref, rewards, beta=beta), ref, rewards, beta=beta)
    return (penalised(logp, ref, rewards, beta=beta) - start) / (best - start)


def frontier_reward(ref: Tensor, rewards: Tensor, *, kl: float) -> float:
    """Return the highest E[reward] of any policy whose KL from the reference is at most `kl`, by bisection."""
    low, high = -12.0, 12.0  # natural logarithm of beta: KL falls as beta rises
    for _ in range(60):
        middle = (low + high) / 2
        reached = exact_kl(tilt(ref, rewards, beta=math.exp(middle)), ref)
        low, high = (middle, high) if reached > kl else (low, middle)
    return expect(tilt(ref, rewards, beta=math.exp(high)), rewards)


def new_policy(family: Family, *, width: int = 64, layers: int = 1, seed: int = 0) -> PreTrainedModel:
    """Return a policy of random weights; GPT-2 is here because its positions are absolute."""
    torch.manual_seed(seed)
    ends = {"bos_token_id": None, "eos_token_id": END, "pad_token_id": PAD}
    if family == "gpt2":
        config = GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=16,
            n_embd=width,
            n_layer=layers,
            n_head=4,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **ends,
        )
        return AutoModelForCausalLM.from_config(config)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=16,
        **ends,
    )
    return AutoModelForCausalLM.from_config(config)


def demonstrate(prompt: Sequence[int], rng: random.Random, *, accuracy: float) -> list[int]:
    """Return a right answer with this probability, and else one in another order, short, or with a foreign digit."""
    answer = sorted(rng.sample(prompt[:-1], 3))
    if rng.random() > accuracy:
        fault = rng.choice(["order", "short", "foreign"])
        if fault == "order":
            rng.shuffle(answer)
        elif fault == "short":
            answer.pop(rng.randrange(3))
        else:
            answer[rng.randrange(3)] = rng.choice(DIGITS)
    return [*answer, END]


def train_reference(
    policy: PreTrainedModel,
    prompts: list[list[int]],
    *,
    steps: int = 150,
    batch: int = 64,
    accuracy: float = 0.4,
    seed: int = 0,
) -> None:
    """Fine-tune a policy in place on noisy demonstrations, so that it is right only part of the time."""
    rng = random.Random(seed)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    policy.train()
    for _ in range(steps):
        drawn = rng.choices(prompts, k=batch)
        rows = lay_out(drawn, [demonstrate(prompt, rng, accuracy=accuracy) for prompt in drawn], pad_id=PAD)
        logits = answer_logits(policy, rows.tokens, rows.attend, answer_width=rows.width)
        nll = -chosen_log_probs(logits, rows.replies, temperature=1.0)[rows.acted].mean()
        nll.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
