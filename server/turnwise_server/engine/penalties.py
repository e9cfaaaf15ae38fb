"""Adjusts one row of logits by what its sequence has said so far, and by the request's own bias."""

from __future__ import annotations

import torch

from turnwise_server.engine.base import SamplingParams


class LogitAdjustment:
    """Penalties and bias of one sequence, kept sparse: only ids that occurred or are biased are touched."""

    def __init__(self, params: SamplingParams, prompt_ids: tuple[int, ...], device: torch.device) -> None:
        self._params = params
        seen = list(dict.fromkeys(prompt_ids)) if params.repetition_penalty != 1.0 else []
        self._slots = {token: slot for slot, token in enumerate(seen)}
        self._ids = torch.tensor(seen, dtype=torch.long, device=device)
        self._counts = torch.zeros(len(seen), device=device)
        self._bias_ids = torch.tensor(list(params.logit_bias), dtype=torch.long, device=device)
        self._bias = torch.tensor(list(params.logit_bias.values()), dtype=torch.float, device=device)

    @staticmethod
    def is_needed(params: SamplingParams) -> bool:
        """Say whether the parameters change any logit."""
        return LogitAdjustment._penalises(params) or bool(params.logit_bias)

    def observe(self, token_id: int) -> None:
        """Count one generated token."""
        if not self._penalises(self._params):
            return
        slot = self._slots.setdefault(token_id, len(self._slots))
        if slot == len(self._ids):
            room = max(64, slot)
            self._ids = torch.cat([self._ids, self._ids.new_zeros(room)])
            self._counts = torch.cat([self._counts, self._counts.new_zeros(room)])
        self._ids[slot] = token_id
        self._counts[slot] += 1

    def apply(self, logits: torch.Tensor) -> None:
        """Adjust one row `[V]` in place: repetition, then frequency and presence, then bias.

        Repetition counts the prompt too (CTRL, https://arxiv.org/abs/1909.05858, section 4.1); the other two count
        generated tokens only, as OpenAI's API defines them.
        """
        params, used = self._params, len(self._slots)
        if used:
            ids, counts = self._ids[:used], self._counts[:used]
            values = logits[ids]
            if params.repetition_penalty != 1.0:
                penalty = params.repetition_penalty
                values = torch.where(values > 0, values / penalty, values * penalty)
            values -= params.frequency_penalty * counts + params.presence_penalty * (counts > 0)
            logits[ids] = values
        if len(self._bias_ids):
            logits[self._bias_ids] += self._bias

    @staticmethod
    def _penalises(params: SamplingParams) -> bool:
        return (
            params.repetition_penalty != 1.0
            or params.frequency_penalty != 0.0
            or params.presence_penalty != 0.0
        )
