"""The engine's loop body: schedule -> run -> postprocess. It knows nothing of processes, pipes or tokenization."""

from __future__ import annotations

import time
from collections.abc import Sequence as Many

import torch

from turnwise_server.engine.base import FinishReason, GenerationRequest, TokenEvent
from turnwise_server.engine.forward import ModelForward, PrefillChunk
from turnwise_server.engine.grammar import GrammarCompiler
from turnwise_server.engine.kv_cache import round_up
from turnwise_server.engine.kv_pool import KVPool
from turnwise_server.engine.sampler import SamplingState, sample
from turnwise_server.engine.scheduler import Schedule, Scheduler
from turnwise_server.engine.sequence import Sequence
from turnwise_server.engine.updates import CoreCounters, StepResult, StepUpdate
from turnwise_server.errors import ConfigurationError, GrammarError

CONTEXTS_NEEDED = 2
"""The least budget of the cache: a whole context in the batch, and the prompt it was computed from."""

_COMPILE_WAIT_S = 0.01
"""How long an idle step waits for a grammar before it asks whether anything else has come."""


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
        grammars: GrammarCompiler | None = None,
    ) -> None:
        self._forward = forward
        self._grammars = grammars
        self._compiling: list[Sequence] = []
        self._context_length = context_length
        token_bytes = forward.kv_format.bytes_per_token
        budget = kv_memory_bytes // token_bytes
        if budget < CONTEXTS_NEEDED * round_up(context_length):
            needed = -(-CONTEXTS_NEEDED * round_up(context_length) * token_bytes // 2**20)
            raise ConfigurationError(
                f"The key-value cache may take {kv_memory_bytes // 2**20} MiB, but sequences of {context_length} "
                f"tokens need {needed} MiB at least. Raise the cache's memory or lower the context length."
            )
        self._pool = KVPool(forward.kv_format, budget)
        self._scheduler = Scheduler(self._pool, max_batch=max_batch, prefill_chunk=prefill_chunk)
        self._no_logits = torch.empty(
            0, forward.vocab_size, dtype=forward.kv_format.dtype, device=forward.kv_format.device
        )
        self._cached_prompt_tokens = self._prompt_tokens = self._generated_tokens = 0

    @property
    def has_work(self) -> bool:
        """Say whether a step would do anything."""
        return bool(self._compiling or self._scheduler.running_count or self._scheduler.waiting_count)

    def counters(self) -> CoreCounters:
        """Return totals and how full the cache is."""
        return CoreCounters(
            cached_prompt_tokens=self._cached_prompt_tokens,
            prompt_tokens=self._prompt_tokens,
            generated_tokens=self._generated_tokens,
            kv_cache_usage=self._pool.usage,
        )

    def submit(self, key: int, request: GenerationRequest) -> None:
        """Queue a request whose prompt fits the context, as soon as its grammar is compiled."""
        prompt, sampling = request.prompt_ids, request.sampling
        grammar = None
        if sampling.grammar is not None:
            assert self._grammars is not None
            grammar = self._grammars.cursor(sampling.grammar, sampling.stop_token_ids)
        sequence = Sequence(
            key=key,
            request=request,
            sampling=SamplingState(sampling, prompt, self._forward.kv_format.device, grammar),
            limit=min(len(prompt) + sampling.max_tokens, self._context_length),
            tokens=list(prompt),
        )
        if grammar is None or grammar.is_compiled:
            self._scheduler.add(sequence)
        else:
            self._compiling.append(sequence)

    @torch.inference_mode()
    def cancel(self, key: int) -> None:
        """Forget a sequence and free its memory at once."""
        self._compiling = [sequence for sequence in self._compiling if sequence.key != key]
        self._scheduler.cancel(key)

    @torch.inference_mode()
    def step(self) -> StepUpdate:
        """Compute one step. A fault fails the sequences it concerned and leaves the others alone."""
        began = time.perf_counter()
        self._queue_compiled()
        plan = self._scheduler.schedule()
        results: list[StepResult] = []
        parts: list[torch.Tensor] = []
        sequences: list[Sequence] = []
        for run, concerned in ((self._decode, plan.decode), (self._prefill, plan.prefilling)):
            try:
                logits, advanced = run(plan)
            except Exception as error:  # noqa: BLE001 - whatever went wrong, its sequences must hear of it
                results += self._fail(concerned, error)
            else:
                if advanced:
                    parts.append(logits)
                    sequences += advanced
        if sequences:
            results += self._sample(torch.cat(parts) if len(parts) > 1 else parts[0], sequences)
        return StepUpdate(plan.started, tuple(results), self.counters(), time.perf_counter() - began)

    def _decode(self, plan: Schedule) -> tuple[torch.Tensor, Many[Sequence]]:
        """Compute the newest token of every running sequence; return the logits `[B, V]` and whose they are."""
        if not plan.decode:
            return self._no_logits, ()
        self._pool.prepare_step()
        newest = [sequence.tokens[-1] for sequence in plan.decode]
        positions = [sequence.computed for sequence in plan.decode]
        logits = self._forward.decode(self._pool.batch, newest, positions)
        for sequence in plan.decode:
            sequence.computed += 1
        return logits, plan.decode

    def _prefill(self, plan: Schedule) -> tuple[torch.Tensor, Many[Sequence]]:
        """Compute a chunk of prompts; return the logits of those that it completes, and whose they are."""
        if not plan.prefill:
            return self._no_logits, ()
        logits = self._forward.prefill([self._chunk(piece.sequence, piece.tokens) for piece in plan.prefill])
        done = [index for index, piece in enumerate(plan.prefill) if piece.is_last]
        for piece in plan.prefill:
            self._advance_prompt(piece.sequence, piece.tokens)
        return logits[done], [plan.prefill[index].sequence for index in done]

    @staticmethod
    def _chunk(sequence: Sequence, tokens: int) -> PrefillChunk:
        assert sequence.block is not None
        begin = sequence.computed
        return PrefillChunk(sequence.block, begin, sequence.tokens[begin : begin + tokens])

    def _advance_prompt(self, sequence: Sequence, tokens: int) -> None:
        sequence.computed += tokens
        if sequence.is_prefilled:
            self._scheduler.prefilled(sequence)
            self._prompt_tokens += sequence.prompt_length
            self._cached_prompt_tokens += sequence.cached_tokens

    def _sample(self, logits: torch.Tensor, sequences: Many[Sequence]) -> list[StepResult]:
        """Choose the next token of every sequence and end those that are done."""
        rows, results = self._look_ahead(sequences)
        if results:
            logits, sequences = logits[rows], [sequences[row] for row in rows]
        if not sequences:
            return results
        try:
            token_ids, logprobs = sample(logits, [sequence.sampling for sequence in sequences])
        except Exception as error:  # noqa: BLE001 - whatever went wrong, its sequences must hear of it
            return results + self._fail(sequences, error)
        for sequence, token_id, entry in zip(sequences, token_ids, logprobs, strict=True):
            sequence.tokens.append(token_id)
            reason = self._finish_reason(sequence, token_id)
            if reason:
                self._scheduler.finish(sequence)
            results.append(
                StepResult(sequence.key, TokenEvent(token_id, reason, entry, sequence.cached_tokens))
            )
        self._generated_tokens += len(sequences)
        return results

    def _queue_compiled(self) -> None:
        """Queue what has its grammar by now; if there is nothing else to do, wait a moment for the first."""
        compiling, self._compiling = self._compiling, []
        for place, sequence in enumerate(compiling):
            grammar = sequence.sampling.grammar
            assert grammar is not None
            if place == 0 and not self.has_work:
                grammar.wait(_COMPILE_WAIT_S)
            if grammar.is_compiled:
                self._scheduler.add(sequence)
            else:
                self._compiling.append(sequence)

    def _look_ahead(self, sequences: Many[Sequence]) -> tuple[list[int], list[StepResult]]:
        """Let grammars find out what may come next; return the rows that can go on, and why the others cannot."""
        rows: list[int] = []
        failures: list[StepResult] = []
        for row, sequence in enumerate(sequences):
            try:
                if sequence.sampling.grammar:
                    sequence.sampling.grammar.look()
            except GrammarError as error:
                self._scheduler.finish(sequence, keep=False)
                failures.append(StepResult(sequence.key, None, str(error), is_grammar_fault=True))
            else:
                rows.append(row)
        return rows, failures

    @staticmethod
    def _finish_reason(sequence: Sequence, token_id: int) -> FinishReason | None:
        if token_id in sequence.request.sampling.stop_token_ids:
            return FinishReason.STOP
        return FinishReason.LENGTH if len(sequence.tokens) >= sequence.limit else None

    def _fail(self, sequences: Many[Sequence], error: Exception) -> list[StepResult]:
        for sequence in sequences:
            self._scheduler.finish(sequence, keep=False)
        return [StepResult(sequence.key, None, f"{type(error).__name__}: {error}") for sequence in sequences]
