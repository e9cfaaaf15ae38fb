"""Holds sequences to grammars: which tokens may come next. It knows the bytes of tokens, and no tensors.

A grammar is compiled in a thread of its own, so that nobody else waits for it, and kept for the requests that follow
with the same one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

from turnwise_server.engine.grammar_text import parser_limits
from turnwise_server.errors import GrammarError

MAX_KEPT_GRAMMARS = 32


class GrammarCompiler:
    """Makes cursors of one model's tokenizer. Not safe to call from several threads."""

    def __init__(self, tokenizer: LLTokenizer) -> None:
        self._tokenizer = tokenizer
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="grammar")
        self._kept: OrderedDict[str, Future[LLMatcher]] = OrderedDict()

    @classmethod
    def load(cls, model: Path, *, vocab_size: int, stop_token_ids: Collection[int]) -> GrammarCompiler | None:
        """Read a checkpoint's tokenizer.json; None if there is none, or tokens have no bytes of their own in it."""
        file = model / "tokenizer.json"
        if not file.is_file() or not stop_token_ids:
            return None
        try:
            text = file.read_text(encoding="utf-8")
            return cls(LLTokenizer(text, n_vocab=vocab_size, eos_token=sorted(stop_token_ids)))
        except ValueError:
            return None

    def cursor(self, text: str, stop_token_ids: Collection[int]) -> GrammarCursor:
        """Return the beginning of a grammar. Returns at once; faults of the grammar are the cursor's."""
        if text not in self._kept:
            self._kept[text] = self._thread.submit(self._compile, text)
        self._kept.move_to_end(text)
        while len(self._kept) > MAX_KEPT_GRAMMARS:
            self._kept.popitem(last=False)
        compiled = self._kept[text]
        ends = np.array(sorted({*stop_token_ids, *self._tokenizer.eos_tokens}), dtype=np.intp)
        stops = np.array(sorted(stop_token_ids), dtype=np.intp)
        return GrammarCursor(compiled, self._tokenizer.vocab_size, ends, stops, lambda: self._forget(text))

    def _compile(self, text: str) -> LLMatcher:
        return LLMatcher(self._tokenizer, text, log_level=0, limits=parser_limits())

    def _forget(self, text: str) -> None:
        """Compile anew next time: copies share a lexer, and one that has grown over its limit stays so."""
        self._kept.pop(text, None)


class GrammarCursor:
    """Where one sequence stands in its grammar."""

    def __init__(
        self,
        compiled: Future[LLMatcher],
        vocab_size: int,
        ends: NDArray[np.intp],
        stops: NDArray[np.intp],
        on_failure: Callable[[], None],
    ) -> None:
        """Begin; `stops` end the sequence where the grammar may end, the other `ends` are never allowed."""
        self._compiled = compiled
        self._matcher: LLMatcher | None = None
        self._ends = ends
        self._stops = stops
        self._stop_ids = frozenset(stops.tolist())
        self._on_failure = on_failure
        self.allowed: NDArray[np.bool_] = np.zeros(vocab_size, dtype=np.bool_)
        """Whether each token `[V]` may come next, as of the last `look`."""

    @property
    def is_compiled(self) -> bool:
        """Say whether `look` would not have to wait."""
        return self._compiled.done()

    def wait(self, timeout_s: float) -> None:
        """Wait until the grammar is compiled, or that long."""
        wait((self._compiled,), timeout_s)

    def look(self) -> None:
        """Find out what may come next.

        Raises:
            GrammarError: the grammar cannot be compiled, or has become too complex.
        """
        if self._matcher is None:
            self._matcher = self._compiled.result().deep_copy()
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        allowed = np.unpackbits(bits, count=len(self.allowed), bitorder="little").view(np.bool_)
        allowed[self._ends] = False
        allowed[self._stops] = self._matcher.is_accepting()
        if self._matcher.is_error() or not allowed.any():
            self._on_failure()
            raise GrammarError(self._matcher.stop_reason())
        self.allowed = allowed

    def advance(self, token_id: int) -> None:
        """Take note of the token that was chosen; a fault shows at the next `look`."""
        assert self._matcher is not None
        if token_id not in self._stop_ids:
            self._matcher.consume_token(token_id)
