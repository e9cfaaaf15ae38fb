"""The engine's loop body: schedule -> run -> postprocess. It knows nothing of processes, pipes or tokenization."""

from __future__ import annotations

from collections.abc import Sequence as Many

import torch

from turnwise_server.engine.base import FinishReason, GenerationRequest, TokenEvent, TokenLogprobs
from turnwise_server.engine.forward import ModelForward, PrefillChunk
from turnwise_server.engine.kv_cache import KVCache, round_up
from turnwise_server.engine.row_table import RowTable
from turnwise_server.engine.sampler import SamplingState, sample
from turnwise_server.engine.scheduler import Schedule, Scheduler
from turnwise_server.engine.sequence import Sequence
from turnwise_server.engine.updates import CoreCounters, StepResult, StepUpdate
from turnwise_server.errors import ConfigurationError

CACHED_ROWS_PER_BATCH_ROW = 2
"""The cache may hold this many rows for each that can run, so that as many finished ones are kept as run."""


class EngineCore:
    """Generates many sequences with one model, a step at a time. Not safe to call from several threads."""

    def __init__(
        self,
        forward: ModelForward,
        *,
        context_length: int,
        max_batch: int,
        kv_memory_bytes: int,
        prefill_chunk: int,
    ) -> None:
        self._forward = forward
        self._context_length = context_length
        self._cache = KVCache(
            forward.layers,
            dtype=forward.dtype,
            device=forward.device,
            transposed_keys=forward.transposed_keys,
        )
        budget_tokens = kv_memory_bytes // self._cache.bytes_per_token
        if budget_tokens < round_up(context_length):
            needed = -(-round_up(context_length) * self._cache.bytes_per_token // 2**20)
            raise ConfigurationError(
                f"The key-value cache may take {kv_memory_bytes // 2**20} MiB, but one sequence of {context_length} "
                f"tokens takes {needed} MiB. Raise the cache's memory or lower the context length."
            )
        self._rows = RowTable(
            self._cache,
            max_rows=max_batch * CACHED_ROWS_PER_BATCH_ROW,
            budget_tokens=budget_tokens,
            context_length=context_length,
        )
        self._scheduler = Scheduler(self._rows, max_batch=max_batch, prefill_chunk=prefill_chunk)
        self._cached_prompt_tokens = self._prompt_tokens = self._generated_tokens = 0

    @property
    def has_work(self) -> bool:
        """Say whether a step would do anything."""
        return bool(self._scheduler.running_count or self._scheduler.waiting_count)

    def counters(self) -> CoreCounters:
        """Return totals and how full the cache is."""
        return CoreCounters(
            cached_prompt_tokens=self._cached_prompt_tokens,
            prompt_tokens=self._prompt_tokens,
            generated_tokens=self._generated_tokens,
            kv_cache_usage=self._rows.usage,
        )

    def submit(self, key: int, request: GenerationRequest) -> None:
        """Queue a request whose prompt fits the context."""
        prompt = request.prompt_ids
        self._scheduler.add(
            Sequence(
                key=key,
                request=request,
                sampling=SamplingState(request.sampling, prompt, self._forward.device),
                limit=min(len(prompt) + request.sampling.max_tokens, self._context_length),
                tokens=list(prompt),
            )
        )

    def cancel(self, key: int) -> None:
        """Forget a sequence and free its row at once."""
        self._scheduler.cancel(key)

    @torch.inference_mode()
    def step(self) -> StepUpdate:
        """Compute one step. A fault fails the sequences it concerned and leaves the others alone."""
        plan = self._scheduler.schedule()
        try:
            logits, sequences = self._run(plan)
            token_ids, logprobs = sample(logits, [s.sampling for s in sequences]) if sequences else ([], [])
        except Exception as error:  # noqa: BLE001 - whatever went wrong, its sequences must hear of it
            results = self._fail(plan, error)
        else:
            results = self._postprocess(sequences, token_ids, logprobs)
        return StepUpdate(plan.started, tuple(results), self.counters())

    def _run(self, plan: Schedule) -> tuple[torch.Tensor, list[Sequence]]:
        """Run the model and return the logits to sample from, with the sequence of each row."""
        parts: list[torch.Tensor] = []
        sequences: list[Sequence] = []
        if plan.decode:
            self._rows.reserve(max(sequence.computed for sequence in plan.decode) + 1)
            parts.append(
                self._forward.decode(
                    self._cache,
                    [sequence.tokens[-1] for sequence in plan.decode],
                    [sequence.computed for sequence in plan.decode],
                )
            )
            sequences += plan.decode
        if plan.prefill:
            chunks = [self._chunk(piece.sequence, piece.tokens) for piece in plan.prefill]
            logits = self._forward.prefill(self._cache, chunks)
            done = [index for index, piece in enumerate(plan.prefill) if piece.is_last]
            if done:
                parts.append(logits[done])
                sequences += [plan.prefill[index].sequence for index in done]
        for sequence in plan.decode:
            sequence.computed += 1
        for piece in plan.prefill:
            self._prefill_done(piece.sequence, piece.tokens)
        return (torch.cat(parts) if parts else torch.empty(0)), sequences

    @staticmethod
    def _chunk(sequence: Sequence, tokens: int) -> PrefillChunk:
        return PrefillChunk(
            sequence.row, sequence.computed, sequence.tokens[sequence.computed : sequence.computed + tokens]
        )

    def _prefill_done(self, sequence: Sequence, tokens: int) -> None:
        sequence.computed += tokens
        if sequence.is_prefilled:
            self._scheduler.prefilled(sequence)
            self._prompt_tokens += sequence.prompt_length
            self._cached_prompt_tokens += sequence.cached_tokens

    def _postprocess(
        self, sequences: Many[Sequence], token_ids: Many[int], logprobs: Many[TokenLogprobs | None]
    ) -> list[StepResult]:
        results = []
        for sequence, token_id, entry in zip(sequences, token_ids, logprobs, strict=True):
            sequence.tokens.append(token_id)
            reason = self._finish_reason(sequence, token_id)
            if reason:
                self._scheduler.finish(sequence)
            results.append(
                StepResult(sequence.key, TokenEvent(token_id, reason, entry, sequence.cached_tokens))
            )
        self._generated_tokens += len(results)
        return results

    @staticmethod
    def _finish_reason(sequence: Sequence, token_id: int) -> FinishReason | None:
        if token_id in sequence.request.sampling.stop_token_ids:
            return FinishReason.STOP
        return FinishReason.LENGTH if len(sequence.tokens) >= sequence.limit else None

    def _fail(self, plan: Schedule, error: Exception) -> list[StepResult]:
        concerned = {s.key: s for s in [*plan.decode, *(piece.sequence for piece in plan.prefill)]}
        for sequence in concerned.values():
            self._scheduler.finish(sequence, keep=False)
        return [StepResult(key, None, f"{type(error).__name__}: {error}") for key in concerned]
