"""Scores token ids with a reward model, in batches sorted by length that change nothing but the time taken."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from turnwise_training.episodes import lay_out
from turnwise_training.models import last_scores


def batch_scores(model: PreTrainedModel, sequences: Sequence[list[int]]) -> Tensor:
    """Return the score [B] of each sequence, read at its last token."""
    laid = lay_out(sequences, [[]] * len(sequences), pad_id=model.config.pad_token_id).to(model.device)
    return last_scores(model, laid.tokens, laid.attend)


@torch.no_grad()
def score_ids(
    model: PreTrainedModel, sequences: Sequence[list[int]], *, micro_tokens: int = 8192
) -> list[float]:
    """Return the score of each sequence; a batch holds at most `micro_tokens` padded tokens, or one sequence."""
    order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]), reverse=True)
    scores = [0.0] * len(sequences)
    while order:
        size = max(1, micro_tokens // len(sequences[order[0]]))
        batch, order = order[:size], order[size:]
        values = batch_scores(model, [sequences[index] for index in batch]).tolist()
        for index, score in zip(batch, values, strict=True):
            scores[index] = score
    return scores
