"""How far a checkpoint has moved from another, measured on its own answers."""

from collections.abc import Sequence
from statistics import fmean

import torch
from transformers import PreTrainedModel

from turnwise_training.config import Sampling
from turnwise_training.episodes import Episode, lay_out
from turnwise_training.losses import chosen_log_probs, kl_k1, kl_k3
from turnwise_training.models import answer_logits
from turnwise_training.parallel import Parallel

MICRO = 16
"""Answers a forward pass."""


@torch.no_grad()
def sampled_kl(
    model: PreTrainedModel,
    reference: PreTrainedModel,
    episodes: Sequence[Episode],
    settings: Sampling,
    parallel: Parallel,
    *,
    pad_id: int,
) -> dict[str, float]:
    """Return the mean KL(model, reference) an answer in nats, at the sampling temperature, on the model's answers.

    `k1` and `k3` estimate the same figure; the second is less noisy near the reference and erratic far from it, where a
    few tokens the model avoids weigh everything. Both models share one vocabulary.
    """

    def estimate(answered: Sequence[Episode]) -> list[tuple[float, float]]:
        prompts, replies = [e.prompt_ids for e in answered], [e.sample.ids for e in answered]
        laid = lay_out(prompts, replies, pad_id=pad_id).to(parallel.device)
        with torch.autocast(parallel.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            logits = [
                answer_logits(each.eval(), laid.tokens, laid.attend, answer_width=laid.width)
                for each in (model, reference)
            ]
        logp, ref = (
            chosen_log_probs(each, laid.replies, temperature=settings.temperature) for each in logits
        )
        sums = [torch.where(laid.acted, kl(logp, ref), 0.0).sum(-1).tolist() for kl in (kl_k1, kl_k3)]
        return list(zip(*sums, strict=True))

    def by_length(part: Sequence[Episode]) -> list[tuple[float, float]]:
        ordered = sorted(part, key=lambda episode: len(episode.prompt_ids) + len(episode.sample.ids))
        batches = [ordered[start : start + MICRO] for start in range(0, len(ordered), MICRO)]
        return [pair for batch in batches for pair in estimate(batch)]

    found = parallel.spread(episodes, by_length)
    return {"k1": fmean(k1 for k1, _ in found), "k3": fmean(k3 for _, k3 in found)}
