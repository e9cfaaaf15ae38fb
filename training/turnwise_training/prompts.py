"""Chooses the prompts that answers are sampled to: which rows, how long, in what order."""

import functools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from turnwise_training.chat import Encoder
from turnwise_training.data import Conversation, Prompt, Ranking, Row, read_source, split_source
from turnwise_training.errors import ConfigurationError

REFERENCE = "reference"
"""The column that holds a demonstration's own reply, for rewards that compare with it."""


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt and its tokens, the header of the reply included."""

    prompt: Prompt
    ids: list[int]


def read_prompts(
    sources: Mapping[str, int],
    encoder: Encoder,
    *,
    data: Path,
    max_tokens: int,
    seed: int,
    held_out: bool = False,
    required: bool = True,
) -> list[EncodedPrompt]:
    """Return at most as many distinct prompts of each source as it says, of at most `max_tokens` tokens.

    Conversations give what stands before their last reply, rankings their prompt. Raises ConfigurationError where
    nothing is left of prompts that are `required`; a small source has none that are held out.
    """
    found: dict[tuple[int, ...], EncodedPrompt] = {}
    dropped = 0
    for name, count in sources.items():
        train, kept_apart = split_source(read_source(data, name, seed=seed), seed=seed)
        wanted = [prompt for row in (kept_apart if held_out else train) if (prompt := prompt_of(row))][:count]
        for prompt in wanted:
            ids = encoder.prompt_ids(prompt.prompt)
            if len(ids) <= max_tokens:
                found.setdefault(tuple(ids), EncodedPrompt(prompt, ids))
            else:
                dropped += 1
    if dropped:
        sys.stderr.write(f"{dropped} prompts are over {max_tokens} tokens and are left out\n")
    if required and not found:
        raise ConfigurationError(f"no prompts of at most {max_tokens} tokens in {sorted(sources)!r}")
    return list(found.values())


def prompt_of(row: Row) -> Prompt | None:
    """Return the prompt a row asks to answer, or None where it asks nothing."""
    if isinstance(row, Prompt):
        return row
    if isinstance(row, Ranking):
        return Prompt(row.prompt, {})
    if isinstance(row, Conversation):
        replies = [index for index, message in enumerate(row.messages) if message["role"] == "assistant"]
        before = row.messages[: replies[-1]] if replies else ()
        return Prompt(tuple(before), {REFERENCE: row.messages[replies[-1]]["content"]}) if before else None
    return None


def prompt_indices(iteration: int, *, batch: int, count: int, seed: int) -> list[int]:
    """Return which of `count` prompts an iteration answers: every prompt once before any comes again.

    The order depends on the seed and the iteration alone, so that a resumed run repeats and skips nothing.
    """
    indices: list[int] = []
    for number in range(iteration * batch, (iteration + 1) * batch):
        epoch, place = divmod(number, count)
        indices.append(_order(epoch, count, seed)[place])
    return indices


@functools.lru_cache(maxsize=2)
def _order(epoch: int, count: int, seed: int) -> Sequence[int]:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return order
