"""What checkpoints are asked: prompts to answer, prompts to refuse or not, rows to predict, rankings to order."""

from collections.abc import Mapping
from dataclasses import dataclass

from turnwise_training.chat import Encoder
from turnwise_training.config import EvaluateConfig
from turnwise_training.data import Prompt, Ranking, Row, Text, only, read_source, split_source
from turnwise_training.prompts import prompt_of, read_prompts
from turnwise_training.ranked import Dropped, RankedPrompt, rank_prompts


@dataclass(frozen=True)
class Questions:
    """The same for every checkpoint."""

    prompts: dict[str, list[Prompt]]
    """`prompts`, `harmful` and `harmless`."""
    held_out: dict[str, list[Row]]

    @property
    def texts(self) -> list[str]:
        """The sources of running text."""
        return [
            name
            for name, rows in self.held_out.items()
            if rows and all(isinstance(row, Text) for row in rows)
        ]


def read_questions(config: EvaluateConfig, encoder: Encoder) -> Questions:
    """Return held-out prompts and rows, and the harmful and harmless prompts whole; `encoder` measures lengths."""
    limit = config.sampling.max_prompt_tokens
    asked = (
        read_prompts(
            config.prompts, encoder, data=config.data, max_tokens=limit, seed=config.seed, held_out=True
        )
        if config.prompts
        else []
    )
    prompts = {
        "prompts": [encoded.prompt for encoded in asked],
        "harmful": _whole_sources(config, config.harmful, encoder),
        "harmless": _whole_sources(config, config.harmless, encoder),
    }
    held_out = {
        name: split_source(read_source(config.data, name, seed=config.seed), seed=config.seed)[1]
        for name in config.held_out
    }
    return Questions(prompts, held_out)


def _whole_sources(config: EvaluateConfig, sources: Mapping[str, int], encoder: Encoder) -> list[Prompt]:
    prompts: list[Prompt] = []
    for name, count in sources.items():
        found = [prompt_of(row) for row in read_source(config.data, name, seed=config.seed)]
        prompts += [prompt for prompt in found if prompt is not None][:count]
    limit = config.sampling.max_prompt_tokens
    return [prompt for prompt in prompts if len(encoder.prompt_ids(prompt.prompt)) <= limit]


def read_rankings(config: EvaluateConfig, encoder: Encoder) -> list[RankedPrompt]:
    """Return the held-out rankings in a reward model's tokens."""
    prompts: list[RankedPrompt] = []
    for name, count in config.rankings.items():
        rows = only(read_source(config.data, name, seed=config.seed), Ranking)
        prompts += rank_prompts(
            split_source(rows, seed=config.seed)[1],
            encoder,
            source=name,
            count=count,
            max_tokens=config.max_tokens,
            margin=0.0,
            dropped=Dropped(),
        )
    return prompts
