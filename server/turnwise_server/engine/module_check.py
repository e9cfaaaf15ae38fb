"""Tries a module through the engine's cache before it is served: one that ignores positions would write nonsense."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from turnwise_server.engine.forward import ModelForward, PrefillChunk
from turnwise_server.engine.kv_cache import LENGTH_BUCKET, KVBlock
from turnwise_server.errors import CheckpointError

_TOKENS = 12
_PREFILLED = 5
_LEAST_SIMILARITY = {torch.float32: 0.999, torch.bfloat16: 0.9, torch.float16: 0.9}
"""Cosine between the logits of both ways, their mean taken off. Rounding costs little of it, a wrong position much."""


def check_forward(module: PreTrainedModel, forward: ModelForward) -> None:
    """Compare a forward with the module run alone and without a cache, on a few tokens.

    Raises:
        CheckpointError: they differ by more than rounding, or the module refuses what the engine passes it.
    """
    form = forward.kv_format
    tokens = [(17 * index + 5) % forward.vocab_size for index in range(_TOKENS)]
    alone: torch.Tensor = module(
        input_ids=torch.tensor([tokens], device=form.device), use_cache=False
    ).logits[0]
    try:
        batched = _through_the_cache(forward, tokens)
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise _refusal(module, f"it fails in a batch ({type(error).__name__}: {error})") from error
    similarity = float(
        torch.cosine_similarity(_centred(alone[_PREFILLED - 1 :]), _centred(batched), dim=-1).min()
    )
    if not similarity >= _LEAST_SIMILARITY[form.dtype]:
        raise _refusal(
            module, f"in a batch it computes something else than alone (similarity {similarity:.3f})"
        )


def _through_the_cache(forward: ModelForward, tokens: list[int]) -> torch.Tensor:
    """Return logits after a first chunk, then after each token decoded in row 1, beside a shorter row 0."""
    block = KVBlock(forward.kv_format, 1, LENGTH_BUCKET)
    parts = [forward.prefill([PrefillChunk(block, 0, tokens[:_PREFILLED])])]
    batch = KVBlock(forward.kv_format, 2, LENGTH_BUCKET)
    batch.copy_row(1, block, 0, _PREFILLED)
    for short, position in enumerate(range(_PREFILLED, len(tokens))):
        logits = forward.decode(batch, [tokens[short], tokens[position]], [short, position])
        parts.append(logits[1:])
    return torch.cat(parts)


def _centred(logits: torch.Tensor) -> torch.Tensor:
    return logits.float() - logits.float().mean(dim=-1, keepdim=True)


def _refusal(module: PreTrainedModel, reason: str) -> CheckpointError:
    return CheckpointError(
        f"The architecture {type(module).__name__!r} cannot be served: {reason}. Serve it with another engine."
    )
