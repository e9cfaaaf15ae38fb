"""The pretraining mix of PPO-ptx: rows of text for every optimizer step, and their gradient in the same buffer."""

from functools import lru_cache

import torch
from torch import nn
from transformers import PreTrainedModel

from turnwise_training.batches import Rows
from turnwise_training.chat import Encoder
from turnwise_training.config import PPOConfig, Ptx
from turnwise_training.data import Row, read_source, split_source
from turnwise_training.loop import accumulate, row_batch, row_loss
from turnwise_training.mixture import mix_rows
from turnwise_training.parallel import Parallel

BLOCK = 64
"""Optimizer steps whose rows are drawn together."""


class PretrainingMix:
    """Adds `coef` times the gradient of the mean NLL a token; a step's rows depend on the step and the seed alone."""

    def __init__(
        self, config: PPOConfig, settings: Ptx, model: PreTrainedModel, encoder: Encoder, parallel: Parallel
    ) -> None:
        self._settings = settings
        self._encoder = encoder
        self._parallel = parallel
        self._data = config.data
        self._micro_tokens = config.micro * settings.seq_len
        self._seed = config.seed
        self._loss = row_loss(model, compile=False, precision=config.precision)
        self._read_source = lru_cache(maxsize=None)(self._read_source_once)
        self._block = lru_cache(maxsize=1)(self._draw_block)

    def add_gradient(self, step: int, policy: nn.Module) -> dict[str, float]:
        """Add the gradient of optimizer step `step`; return the NLL, that gradient's norm and its share of both norms.

        The norm is `coef` times that of the NLL; a share of 0.5 means that PPO's gradient, which was in the buffer
        before, is as long.
        """
        parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
        before = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
        batch = row_batch(self.rows(step), micro_tokens=self._micro_tokens)
        coef = self._settings.coef
        nll = accumulate(lambda rows: coef * self._loss(rows), batch, self._parallel) / coef
        after = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        added = [now - then for now, then in zip(after, before, strict=True)]
        norm, other = self._parallel.norm_of_sum(added), self._parallel.norm_of_sum(before)
        return {"ptx_nll": nll, "ptx_grad_norm": norm, "ptx_grad_share": norm / (norm + other)}

    def rows(self, step: int) -> Rows:
        """Return the rows of one optimizer step."""
        block, place = divmod(step, BLOCK)
        start = place * self._settings.rows
        return self._block(block).take(slice(start, start + self._settings.rows))

    def _draw_block(self, block: int) -> Rows:
        return mix_rows(
            self._settings.mix,
            count=BLOCK * self._settings.rows,
            seq_len=self._settings.seq_len,
            read=lambda name, seed: split_source(self._read_source(name), seed=seed)[0],
            encoder=self._encoder,
            seed=self._seed * 1000 + block,
        )

    def _read_source_once(self, name: str) -> list[Row]:
        return read_source(self._data, name, seed=self._seed)
