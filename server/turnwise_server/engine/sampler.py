"""Chooses the next token of every row in one pass. Pure: logits and each row's state in, token ids out.

One uniform number a row, drawn from the request's own generator, decides by inverse CDF; so a seed gives the same
tokens whatever else is in the batch. Work that no row asks for is skipped.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch

from turnwise_server.engine.base import SamplingParams, TokenLogprobs
from turnwise_server.engine.grammar import GrammarCursor
from turnwise_server.engine.penalties import LogitAdjustment

CANDIDATES = (64, 1024)
"""How many of the most likely tokens are looked at, and then at most, before a whole row is sorted."""

LOGPROB_FLOOR = -9999.0
"""Stands for minus infinity, which JSON cannot say."""

_LEAST_ALLOWED = -1e30
"""No token that a grammar allows is less likely: where the model rules out all of them, one is chosen still."""

_SEED_BITS = 64


class SamplingState:
    """What the sampler keeps for one sequence: parameters, random generator, penalties, grammar."""

    def __init__(
        self,
        params: SamplingParams,
        prompt_ids: tuple[int, ...],
        device: torch.device,
        grammar: GrammarCursor | None = None,
    ) -> None:
        self.params = params
        self.grammar = grammar
        seed = None if params.seed is None else params.seed % (1 << _SEED_BITS)
        self.generator = random.Random(seed)
        needed = LogitAdjustment.is_needed(params)
        self.adjustment = LogitAdjustment(params, prompt_ids, device) if needed else None

    @property
    def is_filtered(self) -> bool:
        """Say whether some tokens are ruled out before drawing."""
        return self.params.top_k > 0 or self.params.top_p < 1.0 or self.params.min_p > 0.0


@torch.inference_mode()
def sample(
    logits: torch.Tensor, states: Sequence[SamplingState]
) -> tuple[list[int], list[TokenLogprobs | None]]:
    """Return the next token of each row of `logits` `[B, V]`, and its logprobs where the row asks for them.

    Grammars must have looked ahead; each advances by the token that is chosen.
    """
    scores = _without_nan(logits.float())
    asking = [row for row, state in enumerate(states) if state.params.top_logprobs is not None]
    raw = torch.log_softmax(scores[asking], dim=-1) if asking else None
    _rule_out(scores, states)
    for row, state in enumerate(states):
        if state.adjustment:
            state.adjustment.apply(scores[row])
    token_ids = _choose(scores, states)
    for token_id, state in zip(token_ids, states, strict=True):
        if state.adjustment:
            state.adjustment.observe(token_id)
        if state.grammar:
            state.grammar.advance(token_id)
    logprobs: list[TokenLogprobs | None] = [None] * len(states)
    if raw is not None:
        widths = [states[row].params.top_logprobs or 0 for row in asking]
        reported = _logprobs(raw, [token_ids[row] for row in asking], widths)
        for row, entry in zip(asking, reported, strict=True):
            logprobs[row] = entry
    return token_ids, logprobs


def _without_nan(scores: torch.Tensor) -> torch.Tensor:
    """Make NaN impossible and +inf finite, so that a sick row still yields a token and harms no other."""
    peak = scores.amax(dim=-1)
    if bool(torch.isfinite(peak).all()):
        return scores
    limit = torch.finfo(scores.dtype).max / 2
    return scores.nan_to_num(nan=-limit, posinf=limit, neginf=-limit)


def _rule_out(scores: torch.Tensor, states: Sequence[SamplingState]) -> None:
    """Set what grammars forbid to minus infinity: nothing that follows makes it possible again."""
    rows = [row for row, state in enumerate(states) if state.grammar]
    if rows:
        masks = np.stack([state.grammar.allowed for state in states if state.grammar])
        forbidden = torch.from_numpy(~masks).to(scores.device)
        scores[rows] = scores[rows].clamp_min(_LEAST_ALLOWED).masked_fill(forbidden, -torch.inf)


def _choose(scores: torch.Tensor, states: Sequence[SamplingState]) -> list[int]:
    drawing = [row for row, state in enumerate(states) if state.params.temperature > 0]
    if not drawing:
        return _as_ints(scores.max(dim=-1).indices)
    token_ids = [0] * len(states) if len(drawing) == len(states) else _as_ints(scores.max(dim=-1).indices)
    plain = [row for row in drawing if not states[row].is_filtered]
    filtered = [row for row in drawing if states[row].is_filtered]
    for rows, draw in ((plain, _draw_plain), (filtered, _draw_filtered)):
        if rows:
            chosen = [states[row] for row in rows]
            scaled = _scale(scores if len(rows) == len(states) else scores[rows], chosen)
            for row, token_id in zip(rows, _as_ints(draw(scaled, chosen)), strict=True):
                token_ids[row] = token_id
    return token_ids


def _scale(scores: torch.Tensor, states: Sequence[SamplingState]) -> torch.Tensor:
    """Divide by the temperature, after the row's maximum is taken off: no temperature is too small to divide by."""
    least = torch.finfo(scores.dtype).tiny
    temperatures = _column([max(state.params.temperature, least) for state in states], scores)
    return (scores - scores.amax(dim=-1, keepdim=True)) / temperatures


def _draw_plain(scaled: torch.Tensor, states: Sequence[SamplingState]) -> torch.Tensor:
    return inverse_cdf(torch.softmax(scaled, dim=-1), _uniforms(states, scaled))


def _draw_filtered(scaled: torch.Tensor, states: Sequence[SamplingState]) -> torch.Tensor:
    """Look at the most likely tokens of every row, and at more of them only where the filters keep all of those."""
    vocab_size = scaled.shape[-1]
    uniforms = _uniforms(states, scaled)
    log_total = torch.logsumexp(scaled, dim=-1, keepdim=True)
    drawn = torch.zeros(len(states), dtype=torch.long, device=scaled.device)
    rows = torch.arange(len(states), device=scaled.device)
    for width in (*CANDIDATES, vocab_size):
        values, ids = scaled[rows].topk(min(width, vocab_size), dim=-1)
        chosen = [states[row] for row in rows.tolist()]
        kept, is_complete = _filter((values - log_total[rows]).exp(), chosen, vocab_size)
        drawn[rows] = ids.gather(-1, inverse_cdf(kept, uniforms[rows])[:, None])[:, 0]
        rows = rows[~is_complete]
        if not len(rows):
            break
    return drawn


def _filter(
    probabilities: torch.Tensor, states: Sequence[SamplingState], vocab_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Zero what top_k, then top_p, then min_p rule out of the descending `[B, K]`; say which rows needed no more.

    top_p is a share of what top_k leaves, and keeps the token that crosses it; the most likely token always stays.
    """
    width = probabilities.shape[-1]
    top_k = _column([state.params.top_k or vocab_size for state in states], probabilities)
    top_p = _column([p if (p := state.params.top_p) < 1.0 else torch.inf for state in states], probabilities)
    min_p = _column([state.params.min_p for state in states], probabilities)
    is_inside = top_k <= width
    has_top_k = top_k < vocab_size
    probabilities = probabilities * (torch.arange(width, device=probabilities.device) < top_k)
    total = torch.where(has_top_k, probabilities.sum(dim=-1, keepdim=True), 1.0)
    before = probabilities.cumsum(dim=-1) - probabilities
    keep = (before < top_p * total) & (probabilities >= min_p * probabilities[:, :1])
    keep[:, 0] = True
    is_complete = is_inside | (~keep[:, -1:] & ~has_top_k)
    return probabilities * keep, is_complete[:, 0]


def inverse_cdf(weights: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Return for each row of `weights` `[B, K]` the index whose share of the total holds the uniform `[B]`."""
    cdf = weights.cumsum(dim=-1)
    total = cdf[:, -1:]
    target = torch.minimum(uniforms[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    index = torch.searchsorted(cdf, target, right=True)[:, 0]
    return index.clamp_(max=weights.shape[-1] - 1)


def _logprobs(raw: torch.Tensor, token_ids: Sequence[int], widths: Sequence[int]) -> list[TokenLogprobs]:
    """Report the chosen tokens' log probabilities in `raw` `[R, V]`, and the most likely ones'."""
    raw = raw.clamp_min(LOGPROB_FLOOR)
    chosen = raw.gather(-1, torch.tensor(token_ids, device=raw.device)[:, None])[:, 0].tolist()
    top = raw.topk(min(max(widths), raw.shape[-1]), dim=-1)
    values, ids = top.values.tolist(), top.indices.tolist()
    return [
        TokenLogprobs(logprob, tuple(zip(ids[row][:width], values[row][:width], strict=True)))
        for row, (logprob, width) in enumerate(zip(chosen, widths, strict=True))
    ]


def _uniforms(states: Sequence[SamplingState], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor([state.generator.random() for state in states], dtype=like.dtype, device=like.device)


def _column(numbers: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(numbers, dtype=like.dtype, device=like.device)[:, None]


def _as_ints(indices: torch.Tensor) -> list[int]:
    numbers: list[int] = indices.tolist()
    return numbers
