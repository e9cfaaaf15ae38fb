"""Which rankings a reward model trains on, in which order, and which are held out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from turnwise_training.chat import Encoder
from turnwise_training.config import RewardConfig
from turnwise_training.data import Conversation, Ranking, only, read_source, split_source
from turnwise_training.errors import DataError
from turnwise_training.loop import Batch
from turnwise_training.ranked import (
    Dropped,
    RankedPrompt,
    encode_answers,
    in_fold,
    last_reply,
    micro_batches,
    rank_prompts,
)

Micro = Sequence[RankedPrompt]
"""Prompts that go through the model together."""
JUDGED_PROMPTS = 512
"""Prompts of each source, at most, that the trained model is judged on."""


@dataclass(frozen=True)
class Plan:
    """What the stage reads: prompts to train on, prompts to be judged on, and what was left out."""

    train: list[RankedPrompt]
    held_out: list[RankedPrompt]
    dropped: Dropped
    batch: int
    epochs: int

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches of an epoch; their sizes differ by one prompt at most."""
        return -(-len(self.train) // self.batch)

    @property
    def tokens(self) -> int:
        """The number of tokens of an epoch, each answer read once with its prompt."""
        return sum(len(ids) for prompt in self.train for ids in prompt.answers)

    def batches(self, *, seed: int, micro_tokens: int) -> Iterator[Batch[Micro]]:
        """Yield every batch of every epoch; the order depends on the seed alone."""
        for epoch in range(self.epochs):
            generator = torch.Generator().manual_seed(seed * 1000 + epoch)
            order = torch.randperm(len(self.train), generator=generator).tolist()
            steps = self.steps_per_epoch
            edges = [len(order) * step // steps for step in range(steps + 1)]
            for start, end in pairwise(edges):
                prompts = [self.train[index] for index in order[start:end]]
                tokens = sum(len(ids) for prompt in prompts for ids in prompt.answers)
                facts: dict[str, object] = {
                    "prompts": len(prompts),
                    "pairs": sum(prompt.pairs for prompt in prompts),
                }
                yield Batch(micro_batches(prompts, micro_tokens=micro_tokens), len(prompts), tokens, facts)


def make_plan(config: RewardConfig, encoder: Encoder) -> Plan:
    """Read and encode the rankings; raises DataError where nothing is left to train on.

    Held out are the rows that every stage holds out and, of n parts, those of the next part, which this model does not
    train on: answers sampled to training prompts have no others.
    """
    dropped = Dropped()
    train: list[RankedPrompt] = []
    held_out: list[RankedPrompt] = []
    for name, count in config.rankings.items():
        rows = only(read_source(config.data, name, seed=config.seed), Ranking)
        sides = split_source(rows, seed=config.seed)
        part, parts = config.fold
        mine = [row for row in sides[0] if in_fold(row, config.fold)]
        others = [row for row in sides[0] if parts > 1 and in_fold(row, ((part + 1) % parts, parts))]
        for prompts, side, most in (
            (train, mine, count),
            (held_out, sides[1] + others, min(count, JUDGED_PROMPTS)),
        ):
            prompts += rank_prompts(
                side,
                encoder,
                source=name,
                count=most,
                max_tokens=config.max_tokens,
                margin=config.margin,
                dropped=dropped,
            )
    if not train:
        raise DataError(f"no ranking to train on in {sorted(config.rankings)}: {dropped}")
    return Plan(train, held_out, dropped, config.batch, config.epochs)


def read_demonstrations(config: RewardConfig, encoder: Encoder) -> list[list[int]]:
    """Return the last replies of the recipe's demonstrations as token ids; those over `max_tokens` are left out."""
    replies: list[list[int]] = []
    for name, count in config.demonstrations.items():
        rows = only(read_source(config.data, name, seed=config.seed), Conversation)
        train, _ = split_source(rows, seed=config.seed)
        replies += encode_answers([last_reply(row) for row in train[:count]], encoder)
    return [ids for ids in replies if len(ids) <= config.max_tokens]
