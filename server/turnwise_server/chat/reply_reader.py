"""Reads one choice's tokens as content and tool calls, with logprobs and stop strings. It knows no engine."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from tokenizers import Tokenizer

from turnwise_server.chat.call_plan import CallPlan
from turnwise_server.chat.detokenizer import Detokenizer, Piece
from turnwise_server.chat.stop_strings import StopStringMatcher
from turnwise_server.chat.token_text import TokenBytes
from turnwise_server.chat.tool_calls import CallDelta, Output

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CallPiece(Generic[T]):
    """More of a tool call, and the notes of tokens whose meaning is clear by now."""

    delta: CallDelta
    notes: tuple[T, ...] = ()


ReplyPiece = Piece[T] | CallPiece[T]


class ReplyReader(Protocol[T]):
    """Feeds on the tokens of one choice, each with an optional note; gives back pieces of the reply."""

    @property
    def stop_string(self) -> str | None:
        """The stop string that has been found."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether nothing more counts, whatever the engine still generates."""
        ...

    @property
    def calls(self) -> int:
        """How many calls of tools have begun."""
        ...

    @property
    def decoded_characters(self) -> int:
        """How many characters the tokens so far have completed, shown or held back."""
        ...

    def feed(self, token_id: int, note: T | None) -> list[ReplyPiece[T]]:
        """Take one token and return what is certain now."""
        ...

    def finish(self, *, is_cut: bool) -> list[ReplyPiece[T]]:
        """Return what was held back; `is_cut` tells an end by length from one that the model chose."""
        ...


def reply_reader(
    tokenizer: Tokenizer, token_bytes: TokenBytes, stops: Sequence[str], plan: CallPlan | None
) -> ReplyReader[T]:
    """Return a reader for one choice of a reply that may call tools, if there is a plan for that."""
    if plan is None:
        return TextReader(tokenizer, token_bytes, stops)
    return CallReader(tokenizer, token_bytes, stops, plan)


class TextReader(Generic[T]):
    """Reads a reply that is nothing but content."""

    def __init__(self, tokenizer: Tokenizer, token_bytes: TokenBytes, stops: Sequence[str]) -> None:
        self._detokenizer: Detokenizer[T] = Detokenizer(tokenizer, token_bytes, stops)
        self.calls = 0

    @property
    def stop_string(self) -> str | None:
        """The stop string that has been found."""
        return self._detokenizer.stop_string

    @property
    def is_over(self) -> bool:
        """Whether a stop string was found."""
        return self._detokenizer.stopped

    @property
    def decoded_characters(self) -> int:
        """How many characters the tokens so far have completed, shown or held back."""
        return self._detokenizer.decoded_characters

    def feed(self, token_id: int, note: T | None) -> list[ReplyPiece[T]]:
        """Take one token and return what may be shown now."""
        return _unless_empty(self._detokenizer.feed(token_id, note))

    def finish(self, *, is_cut: bool) -> list[ReplyPiece[T]]:  # noqa: ARG002 - content is content, cut or not
        """Return what was held back."""
        return _unless_empty(self._detokenizer.finish())


class CallReader(Generic[T]):
    """Reads a reply that may call tools.

    Stop strings are looked for in content alone: what a call says never stops it. A note leaves once the meaning of
    its token's text is settled, with whatever leaves then.
    """

    def __init__(
        self, tokenizer: Tokenizer, token_bytes: TokenBytes, stops: Sequence[str], plan: CallPlan
    ) -> None:
        self._detokenizer: Detokenizer[T] = Detokenizer(tokenizer, token_bytes, visible=plan.control_ids)
        self._parser = plan.parser()
        self._stops = StopStringMatcher(stops)
        self._notes: deque[tuple[int, T]] = deque()
        self._decoded = 0

    @property
    def stop_string(self) -> str | None:
        """The stop string that has been found."""
        return self._stops.matched

    @property
    def is_over(self) -> bool:
        """Whether nothing more counts: a stop string was found, or as many calls made as may be."""
        return self._stops.matched is not None or self._parser.is_complete

    @property
    def calls(self) -> int:
        """How many calls have begun."""
        return self._parser.calls

    @property
    def decoded_characters(self) -> int:
        """How many characters the tokens so far have completed, shown or held back."""
        return self._detokenizer.decoded_characters

    def feed(self, token_id: int, note: T | None = None) -> list[ReplyPiece[T]]:
        """Take one token and return what is certain now."""
        piece = self._detokenizer.feed(token_id, note)
        pieces = self._pieces(piece, self._parser.feed(piece.text))
        return self._with_notes(pieces, self._decoded - self._parser.held - self._stops.held)

    def finish(self, *, is_cut: bool) -> list[ReplyPiece[T]]:
        """Return what was held back; `is_cut` tells an end by length from one that the model chose."""
        piece = self._detokenizer.finish()
        outputs = [*self._parser.feed(piece.text), *self._parser.finish(is_cut=is_cut)]
        pieces = self._pieces(piece, outputs)
        if held := self._stops.flush():
            pieces.append(Piece(held, ()))
        if self._notes and not pieces and self._stops.matched is None:
            pieces.append(Piece("", ()))
        return self._with_notes(pieces, self._decoded - self._stops.held)

    def _pieces(self, piece: Piece[T], outputs: list[Output]) -> list[ReplyPiece[T]]:
        self._decoded += len(piece.text)
        self._notes.extend((self._decoded, note) for note in piece.notes)
        pieces: list[ReplyPiece[T]] = []
        for output in outputs:
            if self._stops.matched is not None:
                break
            text = self._stops.feed(output) if isinstance(output, str) else self._stops.flush()
            if text:
                pieces.append(Piece(text, ()))
            if isinstance(output, CallDelta):
                pieces.append(CallPiece(output))
        return pieces

    def _with_notes(self, pieces: list[ReplyPiece[T]], settled: int) -> list[ReplyPiece[T]]:
        """Let the last piece carry the notes of the first `settled` characters."""
        ready: list[T] = []
        while pieces and self._notes and self._notes[0][0] <= settled:
            ready.append(self._notes.popleft()[1])
        if ready:
            pieces[-1] = replace(pieces[-1], notes=tuple(ready))
        return pieces


def _unless_empty(piece: Piece[T]) -> list[ReplyPiece[T]]:
    return [piece] if piece.text or piece.notes else []
