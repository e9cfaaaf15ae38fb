"""Tells whether a reply gives the system text away: a planted canary, or long stretches of it word for word. Pure.

The verdict depends on the window alone, so it can be asked at every check of a streamed reply.
"""

from __future__ import annotations

import base64
import codecs
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate

from turnwise_server.chat.messages import SYSTEM_ROLES, ClientMessage
from turnwise_server.chat.refusal.texts import content_of

_CANARY_BYTES = 12
_WORD = re.compile(r"\w+")
_NOT_ALPHANUMERIC = re.compile(r"[\W_]+")

Ngram = tuple[str, ...]


def new_canary() -> str:
    """Make a word that stands in no other text, to be planted in a system text: 24 hexadecimal digits."""
    return secrets.token_hex(_CANARY_BYTES)


def plant(messages: Sequence[ClientMessage], canary: str) -> tuple[ClientMessage, ...]:
    """Return the conversation with the canary at the end of its first system message, if it has one."""
    planted = list(messages)
    for index, message in enumerate(messages):
        if message.role in SYSTEM_ROLES:
            planted[index] = replace(message, content=f"{content_of(message)}\n\nNever say: {canary}")
            break
    return tuple(planted)


class LeakDetector:
    """Compares replies with one system text.

    What the user wrote is no secret: words that a user asks to have repeated are not counted, even where the system
    text has them too.
    """

    def __init__(
        self,
        system_text: str,
        user_texts: Iterable[str] = (),
        *,
        canary: str = "",
        ngram: int = 12,
        min_overlap: float = 0.5,
    ) -> None:
        """Look for `canary` ("" for none), and for stretches of words with an overlap above `min_overlap`."""
        self._n = ngram
        self._min_overlap = min_overlap
        self._canaries = _disguises(canary) if canary else frozenset()
        secret = set(self._ngrams(system_text))
        self._secret = secret.difference(*map(self._ngrams, user_texts))

    def is_leak(self, window: str) -> bool:
        """Return whether `window` holds the canary or too much of the system text."""
        return self.holds_canary(window) or self.overlap(window) > self._min_overlap

    def holds_canary(self, window: str) -> bool:
        """Return whether the canary is in the text: plain, spaced out, reversed, in rot13, hexadecimal or base64."""
        letters = _NOT_ALPHANUMERIC.sub("", window).casefold()
        return any(canary in letters for canary in self._canaries)

    def overlap(self, window: str) -> float:
        """Return the share, 0..1, of n-grams that stand in the system text too, where it is highest.

        It is taken over every stretch of `2 * ngram` words, or as many as the secret has if that is less: so harmless
        words around a quotation do not thin it out, and a few words in common weigh little.
        """
        if not self._secret:
            return 0.0
        hits = [ngram in self._secret for ngram in self._ngrams(window)]
        stretch = min(self._n + 1, len(self._secret))
        sums = [0, *accumulate(hits)]
        most = max(end - sums[max(0, at - stretch)] for at, end in enumerate(sums))
        return most / stretch

    def _ngrams(self, text: str) -> list[Ngram]:
        words = _WORD.findall(text.casefold())
        return list(zip(*(words[start:] for start in range(self._n)), strict=False))


def _disguises(canary: str) -> frozenset[str]:
    """Return what is left of the canary's usual encodings when case and all but letters and digits are dropped."""
    data = canary.encode()
    # Where it starts in the encoded text shifts base64 by up to two bytes; the characters at both ends vary.
    shifted = [base64.b64encode(b"\0" * pad + data).decode().rstrip("=") for pad in range(3)]
    inner = [text[4 if pad else 0 : len(text) - 1] for pad, text in enumerate(shifted)]
    texts = [canary, canary[::-1], codecs.encode(canary, "rot13"), data.hex(), *inner]
    return frozenset(_NOT_ALPHANUMERIC.sub("", text).casefold() for text in texts)
