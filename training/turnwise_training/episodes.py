"""One rollout, and rollouts laid out as tensors by the conventions of PPO; it knows neither models nor rewards.

tokens [B, P+T]   prompts left-padded to P, answers right-padded to T
attend [B, P+T]   explicit mask of what is no padding; never derived from token ids
acted  [B, T]     true on every sampled token, the end token included, and false after it
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from turnwise_training.data import Prompt


@dataclass(frozen=True)
class Sample:
    """What an engine sampled to one prompt."""

    ids: list[int]
    """The answer's tokens, the end token included where there is one."""
    ended: bool
    """Whether the last token ends the turn; false where the answer ran into the limit."""
    log_probs: list[float]
    """The engine's own log-probability of each token: checked, and trained on only as an importance weight."""


@dataclass(frozen=True)
class Episode:
    """A prompt, the sampled answer and its text, as rewards see it."""

    prompt: Prompt
    prompt_ids: list[int]
    sample: Sample
    reply: str
    """The answer's text without control tokens."""


@dataclass(frozen=True)
class Experience:
    """The rollouts of one iteration and what the models say of them; tensors are [B, T], 0 where nothing was acted."""

    episodes: list[Episode]
    acted: Tensor
    logp: Tensor
    ref: Tensor
    entropy: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor


@dataclass(frozen=True)
class Answers:
    """Rollouts as tensors."""

    tokens: Tensor
    attend: Tensor
    acted: Tensor

    @property
    def width(self) -> int:
        """T, the columns of the answers."""
        return self.acted.shape[1]

    @property
    def replies(self) -> Tensor:
        """Return the answers' tokens [B, T]."""
        return self.tokens[:, -self.width :]

    def to(self, device: torch.device) -> "Answers":
        """Return the rollouts on a device."""
        return Answers(self.tokens.to(device), self.attend.to(device), self.acted.to(device))


def lay_out(
    prompts: Sequence[list[int]], replies: Sequence[list[int]], *, pad_id: int, extra: int = 0
) -> Answers:
    """Return prompts and answers padded to the longest of each, and by `extra` more columns on both sides."""
    before = max(map(len, prompts)) + extra
    after = max(map(len, replies)) + extra
    tokens = torch.full((len(prompts), before + after), pad_id, dtype=torch.int64)
    attend = torch.zeros(tokens.shape, dtype=torch.bool)
    for row, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
        here = slice(before - len(prompt), before + len(reply))
        tokens[row, here] = torch.tensor(prompt + reply)
        attend[row, here] = True
    return Answers(tokens, attend, attend[:, before:])


def engine_log_probs(episodes: Sequence[Episode]) -> Tensor:
    """Return the engine's own log-probabilities [B, T], 0 after each answer's end."""
    return pad_sequence([torch.tensor(each.sample.log_probs) for each in episodes], batch_first=True)
