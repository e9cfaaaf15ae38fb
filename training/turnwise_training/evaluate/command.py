"""`turnwise-train evaluate`: runs every check that a configuration asks for and writes evaluation.json."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from turnwise_training.chat import Encoder, load_tokenizer
from turnwise_training.config import EvaluateConfig
from turnwise_training.episodes import Episode
from turnwise_training.errors import ConfigurationError, RunError
from turnwise_training.evaluate.divergence import answer_kl
from turnwise_training.evaluate.held_out import held_out_losses
from turnwise_training.evaluate.questions import Questions, read_questions, read_rankings
from turnwise_training.evaluate.refusals import RefusalPhrases, share_with_interval
from turnwise_training.evaluate.table import print_tables
from turnwise_training.evaluate.texts import text_figures
from turnwise_training.evaluate.win_rate import compare
from turnwise_training.models import load_reward_model
from turnwise_training.parallel import Parallel
from turnwise_training.recipe import as_json
from turnwise_training.reward_metrics import reward_report
from turnwise_training.rewards import build_reward
from turnwise_training.run import write_durably
from turnwise_training.sampling import Sampler
from turnwise_training.scoring import score_ids

FORMAT_VERSION = 1
EXAMPLES = 8
"""Prompts whose answers evaluation.json shows side by side."""

Figures = dict[str, object]


@dataclass(frozen=True)
class Examined:
    """What one checkpoint did, in its own tokens: held-out losses, answers to each kind of prompts, KL from another."""

    encoder: Encoder
    held_out: dict[str, dict[str, float]]
    answers: dict[str, list[Episode]]
    kl: float | None


def run_evaluate(config: EvaluateConfig, *, force: bool) -> None:
    """Judge the checkpoints, write the figures and print them; raises RunError where the file is there already."""
    against = _against(config)
    if config.output.exists() and not force:
        raise RunError(f"{config.output} exists; pass --force to replace it or choose another output")
    parallel = Parallel()
    reference = Sampler.load(config.checkpoints[against], config.sampling, parallel)
    questions = read_questions(config, reference.encoder)
    examined = {
        name: _examine(
            config,
            reference if name == against else Sampler.load(folder, config.sampling, parallel),
            reference,
            questions,
            parallel,
        )
        for name, folder in config.checkpoints.items()
    }
    scores = _scores(config, examined, parallel)
    refused = _refused(config, examined, parallel)
    report = {
        "format_version": FORMAT_VERSION,
        "config": as_json(config),
        "against": against,
        "checkpoints": {
            name: {
                "held_out": found.held_out,
                **_alignment_tax(questions.texts, found, examined[against]),
                **({"kl": found.kl} if found.kl is not None else {}),
                **_answer_figures(found.answers["prompts"]),
                **({"score_mean": fmean(scores[name])} if name in scores else {}),
                **_win_rate(config, name, against, examined, scores),
                "refusals": {kind: share_with_interval(hits) for kind, hits in refused[name].items()},
            }
            for name, found in examined.items()
        },
        "reward_models": {
            name: _reward_figures(config, folder, parallel) for name, folder in config.reward_models.items()
        },
        "examples": _examples(examined),
    }
    if parallel.is_main:
        config.output.parent.mkdir(parents=True, exist_ok=True)
        write_durably(config.output, (json.dumps(report, indent=2) + "\n").encode())
        print_tables(report)


def describe(config: EvaluateConfig) -> Figures:
    """Return what a dry run prints: the prompts of each kind and the most tokens sampled."""
    encoder = Encoder(load_tokenizer(config.checkpoints[_against(config)]))
    counts = {kind: len(asked) for kind, asked in read_questions(config, encoder).prompts.items()}
    answers = sum(counts.values()) * len(config.checkpoints)
    return {**counts, "tokens_at_most": answers * config.sampling.max_new_tokens}


def _against(config: EvaluateConfig) -> str:
    if not config.checkpoints:
        raise ConfigurationError("'checkpoints' is empty; name at least one model directory")
    against = config.against or next(iter(config.checkpoints))
    if against not in config.checkpoints:
        raise ConfigurationError(f"'against' is {against!r}; choose one of {list(config.checkpoints)}")
    return against


def _examine(
    config: EvaluateConfig, sampler: Sampler, reference: Sampler, questions: Questions, parallel: Parallel
) -> Examined:
    """Take a checkpoint's losses, sample its answers and measure how far they are from the reference."""
    encoder = sampler.encoder
    losses = held_out_losses(sampler.model, encoder, questions.held_out, tokens=config.eval_tokens)
    answers = {
        kind: sampler.answer(asked, seed=config.seed + number) if asked else []
        for number, (kind, asked) in enumerate(questions.prompts.items())
    }
    kl = None
    one_vocabulary = encoder.tokenizer.get_vocab() == reference.encoder.tokenizer.get_vocab()
    if sampler is not reference and one_vocabulary and answers["prompts"]:
        models = sampler.model, reference.model
        kl = answer_kl(*models, answers["prompts"], config.sampling, parallel, pad_id=encoder.pad_id)
    return Examined(encoder, losses, answers, kl)


def _scores(
    config: EvaluateConfig, examined: Mapping[str, Examined], parallel: Parallel
) -> dict[str, list[float]]:
    if not config.judge or not config.prompts:
        return {}
    return {
        name: parallel.spread(
            found.answers["prompts"], build_reward(config.judge, found.encoder, parallel.device).score
        )
        for name, found in examined.items()
    }


def _refused(
    config: EvaluateConfig, examined: Mapping[str, Examined], parallel: Parallel
) -> dict[str, dict[str, list[bool]]]:
    """Return for each checkpoint, and each kind of prompt that there is, which answers refuse."""
    term = config.refusal_judge
    refused = {}
    for name, found in examined.items():
        judge = build_reward((term,), found.encoder, parallel.device) if term else RefusalPhrases()
        refused[name] = {
            kind: [score > 0 for score in parallel.spread(found.answers[kind], judge.score)]
            for kind in ("harmful", "harmless")
            if found.answers[kind]
        }
    return refused


def _alignment_tax(texts: Sequence[str], found: Examined, before: Examined) -> Figures:
    """Return by how much the mean loss on running text rose, in nats a token."""
    if not texts or found is before:
        return {}
    losses = [[side.held_out[name]["nats_per_token"] for name in texts] for side in (found, before)]
    return {"alignment_tax": fmean(losses[0]) - fmean(losses[1])}


def _answer_figures(episodes: Sequence[Episode]) -> Figures:
    if not episodes:
        return {}
    return {
        "tokens_mean": fmean(len(episode.sample.ids) for episode in episodes),
        "unfinished": fmean(not episode.sample.ended for episode in episodes),
        **text_figures([episode.reply for episode in episodes]),
    }


def _win_rate(
    config: EvaluateConfig,
    name: str,
    against: str,
    examined: Mapping[str, Examined],
    scores: Mapping[str, list[float]],
) -> Figures:
    if name == against or name not in scores:
        return {}
    lengths, other_lengths = (
        [len(episode.reply) for episode in examined[which].answers["prompts"]] for which in (name, against)
    )
    return {
        "preferred": compare(
            scores[name],
            scores[against],
            lengths,
            other_lengths,
            resamples=config.resamples,
            seed=config.seed,
        )
    }


def _reward_figures(config: EvaluateConfig, folder: Path, parallel: Parallel) -> Figures:
    """Return the accuracy and calibration of a reward model on held-out rankings."""
    encoder = Encoder(load_tokenizer(folder))
    model = load_reward_model(folder)
    parallel.place(model)
    prompts = read_rankings(config, encoder)
    answers = [ids for prompt in prompts for ids in prompt.answers]
    scores = iter(parallel.spread(answers, lambda part: score_ids(model, part)))
    return reward_report(prompts, [[next(scores) for _ in prompt.answers] for prompt in prompts])


def _examples(examined: Mapping[str, Examined]) -> list[Figures]:
    """Return the first prompts with every checkpoint's answer."""
    first = next(iter(examined.values())).answers["prompts"][:EXAMPLES]
    return [
        {
            "prompt": list(episode.prompt.prompt),
            "answers": {name: found.answers["prompts"][row].reply for name, found in examined.items()},
        }
        for row, episode in enumerate(first)
    ]
