"""How far a checkpoint has moved from another, measured on its own answers."""

from collections.abc import Sequence
from statistics import fmean

import torch
from transformers import PreTrainedModel

from turnwise_training.config import Sampling
from turnwise_training.episodes import Episode, lay_out
from turnwise_training.models import answer_logits
from turnwise_training.parallel import Parallel

MICRO = 4
"""Answers a forward pass; both models' whole distributions of each token are held at once."""


@torch.no_grad()
def answer_kl(
    model: PreTrainedModel,
    reference: PreTrainedModel,
    episodes: Sequence[Episode],
    settings: Sampling,
    parallel: Parallel,
    *,
    pad_id: int,
) -> float:
    """Return the mean KL(model, reference) an answer, in nats at the sampling temperature.

    Exact over the vocabulary at every token, sampled over the answers, which are the model's own. Both models share
    one vocabulary.
    """

    def divergences(answered: Sequence[Episode]) -> list[float]:
        prompts, replies = [e.prompt_ids for e in answered], [e.sample.ids for e in answered]
        laid = lay_out(prompts, replies, pad_id=pad_id).to(parallel.device)
        with torch.autocast(parallel.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            logits = [
                answer_logits(each.eval(), laid.tokens, laid.attend, answer_width=laid.width)
                for each in (model, reference)
            ]
        p, q = (torch.log_softmax(each.float() / settings.temperature, -1) for each in logits)
        by_token = (p.exp() * (p - q)).sum(-1)
        found: list[float] = torch.where(laid.acted, by_token, 0.0).sum(-1).tolist()
        return found

    def by_length(part: Sequence[Episode]) -> list[float]:
        ordered = sorted(part, key=lambda episode: len(episode.prompt_ids) + len(episode.sample.ids))
        batches = [ordered[start : start + MICRO] for start in range(0, len(ordered), MICRO)]
        return [kl for batch in batches for kl in divergences(batch)]

    return fmean(parallel.spread(episodes, by_length))
