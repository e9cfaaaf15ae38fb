"""Held-out loss per source, in nats per token and per byte."""

from collections.abc import Mapping

import torch
from transformers import LlamaForCausalLM

from turnwise_training.batches import pack
from turnwise_training.chat import Encoded, Encoder
from turnwise_training.data import Row
from turnwise_training.lm_loss import token_nll

ROW_TOKENS = 1024
"""Longer rows are cut here: a sample of each source is what is wanted."""


@torch.no_grad()
def held_out_losses(
    model: LlamaForCausalLM, encoder: Encoder, sources: Mapping[str, list[Row]], *, tokens: int
) -> dict[str, dict[str, float]]:
    """Return the mean loss over the trained tokens of at most `tokens` tokens of each source's held-out rows."""
    model.eval()
    return {
        name: losses
        for name, rows in sorted(sources.items())
        if (losses := _source_loss(model, encoder, rows, tokens)) is not None
    }


def _source_loss(
    model: LlamaForCausalLM, encoder: Encoder, rows: list[Row], tokens: int
) -> dict[str, float] | None:
    seq_len = min(ROW_TOKENS, model.config.max_position_embeddings)
    taken: list[Encoded] = []
    budget = tokens
    for row in rows:
        (encoded,) = encoder.encode([row])
        if budget <= 0:
            break
        cut = Encoded(encoded.ids[:seq_len], encoded.trained[:seq_len])
        if any(cut.trained[1:]):
            taken.append(cut)
            budget -= len(cut.ids)
    if not taken:
        return None
    packed = pack(taken, seq_len=seq_len, pad_id=encoder.pad_id)
    nll = 0.0
    for start in range(0, len(packed), 4):
        part = packed.take(slice(start, start + 4))
        with torch.autocast(part.ids.device.type, torch.bfloat16):
            nll += token_nll(model, part.ids, part.labels, part.positions).item()
    count = packed.trained_tokens
    trained = [[t for t, on in zip(e.ids[1:], e.trained[1:], strict=True) if on] for e in taken]
    text = encoder.tokenizer.batch_decode(trained, skip_special_tokens=True)
    size = sum(len(part.encode()) for part in text)
    return {"nats_per_token": nll / count, "nats_per_byte": nll / size, "tokens": count}
