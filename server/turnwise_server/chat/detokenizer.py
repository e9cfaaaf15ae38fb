"""Streams one reply's tokens as text: whole characters only, cut before a stop string, logprobs in step with text."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from turnwise_server.chat.stop_strings import StopStringMatcher
from turnwise_server.chat.token_text import TokenBytes

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Piece(Generic[T]):
    """Text that may be shown, and the notes (logprobs) of the tokens it completes."""

    text: str
    notes: tuple[T, ...]


class Detokenizer(Generic[T]):
    """Feeds on token ids, each with an optional note; gives back pieces.

    A note leaves together with the last character its token contributed to, so held-back text never shows through
    its logprobs.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        token_bytes: TokenBytes,
        stops: Sequence[str] = (),
        *,
        visible: Collection[int] = (),
    ) -> None:
        """Control tokens are no text, but for the `visible` ones, which stand for their names."""
        self._tokenizer = tokenizer
        self._token_bytes = token_bytes
        self._visible = visible
        self._stream = DecodeStream(skip_special_tokens=True)
        self._matcher = StopStringMatcher(stops)
        self._held_ids: list[int] = []
        self._notes: deque[tuple[int | None, T]] = deque()
        self._decoded = 0
        self._released = 0

    @property
    def stopped(self) -> bool:
        """Whether a stop string has been found."""
        return self._matcher.matched is not None

    @property
    def stop_string(self) -> str | None:
        """The stop string that has been found."""
        return self._matcher.matched

    @property
    def decoded_characters(self) -> int:
        """How many characters the tokens so far have completed, shown or held back."""
        return self._decoded

    def feed(self, token_id: int, note: T | None = None) -> Piece[T]:
        """Take one token and return what may be shown now."""
        text = self._decode(token_id)
        self._decoded += len(text)
        self._held_ids.append(token_id)
        if text:
            self._held_ids.clear()
            self._settle_notes()
        if note is not None:
            is_inside_character = not text and not self._is_silent(token_id)
            self._notes.append((None if is_inside_character else self._decoded, note))
        return self._release(self._matcher.feed(text))

    def finish(self) -> Piece[T]:
        """Return what was held back. The bytes of a character that was never completed are no text."""
        if self.stopped:
            return Piece("", ())
        text = self._matcher.feed(self._unfinished()) + self._matcher.flush()
        notes = () if self.stopped else tuple(note for _, note in self._notes)
        self._notes.clear()
        return Piece(text, notes)

    def _decode(self, token_id: int) -> str:
        if token_id not in self._visible:
            return self._stream.step(self._tokenizer, token_id) or ""
        text = self._unfinished() + str(self._tokenizer.id_to_token(token_id))
        self._stream = DecodeStream(skip_special_tokens=True)
        return text

    def _unfinished(self) -> str:
        """Text that the stream waits with, without the bytes of a character that will not be completed.

        A replacement character that the model wrote stays: only bytes tell it from half a character.
        """
        data = b"".join(self._token_bytes(held) for held in self._held_ids if not self._is_silent(held))
        return codecs.getincrementaldecoder("utf-8")("replace").decode(data)

    def _release(self, text: str) -> Piece[T]:
        self._released += len(text)
        ready: list[T] = []
        while self._notes and self._notes[0][0] is not None and self._notes[0][0] <= self._released:
            ready.append(self._notes.popleft()[1])
        return Piece(text, tuple(ready))

    def _settle_notes(self) -> None:
        """The character that some tokens began is complete: their notes may leave with it."""
        self._notes = deque((self._decoded if end is None else end, note) for end, note in self._notes)

    def _is_silent(self, token_id: int) -> bool:
        """Whether the token stands for no text at all (a special token), rather than for part of a character."""
        return not self._tokenizer.decode([token_id], skip_special_tokens=True)
