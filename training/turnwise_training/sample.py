"""Writes several answers to each prompt as rows of rankings: what people or a reward model rank next."""

import json
import sys
from collections.abc import Sequence

from turnwise_training.chat import Encoder, load_tokenizer
from turnwise_training.config import SampleConfig
from turnwise_training.data import Completion, Ranking, to_json
from turnwise_training.episodes import Episode
from turnwise_training.errors import ConfigurationError, RunError
from turnwise_training.parallel import Parallel
from turnwise_training.prompts import REFERENCE, EncodedPrompt, read_prompts
from turnwise_training.rewards import build_reward
from turnwise_training.run import write_durably
from turnwise_training.sampling import Sampler


def describe(config: SampleConfig) -> dict[str, object]:
    """Return what a dry run prints: prompts, answers and the most tokens sampled."""
    answers = len(_prompts(config, Encoder(load_tokenizer(config.model)))) * config.answers
    return {"answers": answers, "tokens_at_most": answers * config.sampling.max_new_tokens}


def run_sample(config: SampleConfig, *, force: bool) -> None:
    """Sample, rank and write; raises RunError where the file is there already, unless `force`."""
    if config.answers < 2:
        raise ConfigurationError(f"answers is {config.answers}; a ranking needs two or more")
    if config.output.exists() and not force:
        raise RunError(f"{config.output} exists; pass --force to replace it or choose another output")
    parallel = Parallel()
    sampler = Sampler.load(config.model, config.sampling, parallel)
    prompts = [encoded.prompt for encoded in _prompts(config, sampler.encoder)]
    episodes = sampler.answer(prompts, answers=config.answers, seed=config.seed)
    scores = [0.0] * len(episodes)
    if config.rank_by:
        reward = build_reward(config.rank_by, sampler.encoder, parallel.device)
        scores = parallel.spread(episodes, reward.score)
    ranked_rows = (
        ranked(
            episodes[start : start + config.answers],
            scores[start : start + config.answers],
            policy=config.model.name,
            with_demonstration=config.with_demonstration,
        )
        for start in range(0, len(episodes), config.answers)
    )
    rows = [
        row for row in ranked_rows if len(row.completions) > 1
    ]  # the rest met the demonstration word for word
    if parallel.is_main:
        config.output.parent.mkdir(parents=True, exist_ok=True)
        write_durably(config.output, "".join(json.dumps(to_json(row)) + "\n" for row in rows).encode())
        sys.stderr.write(f"{config.output}: {len(rows)} rankings\n")


def _prompts(config: SampleConfig, encoder: Encoder) -> list[EncodedPrompt]:
    return read_prompts(
        config.prompts,
        encoder,
        data=config.data,
        max_tokens=config.sampling.max_prompt_tokens,
        seed=config.seed,
    )


def ranked(
    episodes: Sequence[Episode], scores: Sequence[float], *, policy: str, with_demonstration: bool = False
) -> Ranking:
    """Return the answers to one prompt ranked by score, the best one rank 1; equal scores tie.

    The demonstration that a prompt was made from stands above them all where it is asked for and there is one.
    """
    reference = episodes[0].prompt.columns.get(REFERENCE) if with_demonstration else None
    best = [Completion(str(reference).strip(), 1, "demonstration")] if reference is not None else []
    order = sorted(set(scores), reverse=True)
    completions = [
        Completion(episode.reply.strip(), len(best) + order.index(score) + 1, policy)
        for episode, score in zip(episodes, scores, strict=True)
        if not best or episode.reply.strip() != best[0].content
    ]
    return Ranking(episodes[0].prompt.prompt, (*best, *completions))
