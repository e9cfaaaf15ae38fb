"""Decides how much of a reply may be shown while the rest is still being checked. Pure: text in, numbers out.

The text is checked at fixed offsets and at its end, each time as a window that ends there. A pass at offset b releases
all but the last `hold_chars` before b, cut where no character is split; the pass at the end releases the rest. Offsets
are counted in characters of the text, so nothing depends on how it was cut into tokens or chunks.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal

from turnwise_server.chat.refusal.graphemes import can_cut

Mode = Literal["full", "hold_back", "async"]

MIN_HOLD_CHARS = 40
FIRST_STRIDE_CHARS = 40


@dataclass(frozen=True, slots=True)
class HoldBackRule:
    """How far the checks of a reply lie apart, what they see and what waits for them."""

    mode: Mode = "hold_back"
    """`full` shows nothing before the end has passed; `async` shows everything at once and takes back too late."""
    stride_chars: int = 160
    """Characters between two checks. The first ones come sooner: after 40, then 80, so that the reply starts sooner."""
    hold_chars: int = 80
    """Characters that a check must see after a character before that one is shown."""
    context_chars: int = 600
    """Characters that a check sees at most."""

    def __post_init__(self) -> None:
        """Refuse a rule under which a character could be shown that no check has seen well.

        Raises:
            ValueError: names the number that does not fit.
        """
        if self.stride_chars < 1:
            raise ValueError(f"stride_chars must be at least 1, not {self.stride_chars}")
        if self.hold_chars < MIN_HOLD_CHARS:
            raise ValueError(f"hold_chars must be at least {MIN_HOLD_CHARS}, not {self.hold_chars}")
        if self.context_chars < self.stride_chars + self.hold_chars:
            raise ValueError(
                f"context_chars must be at least stride_chars + hold_chars = {self.stride_chars + self.hold_chars}, "
                f"not {self.context_chars}: a character would be shown that no check saw with what follows it"
            )

    def stride(self, checks: int) -> int:
        """Return how many characters lie between check number `checks` (the first is 0) and the one before it."""
        # The shift is bounded because a long reply has thousands of checks.
        return min(FIRST_STRIDE_CHARS << min(checks, 16), self.stride_chars)


@dataclass(frozen=True, slots=True)
class Check:
    """A check that is due: the text that ends at `offset`, or as much of it as a check sees."""

    offset: int
    window: str


class HoldBack:
    """The text of one choice: `feed` it and `end` it, make the checks that are `due` and say whether they `passed`."""

    def __init__(self, rule: HoldBackRule) -> None:
        self._rule = rule
        self._text = io.StringIO(newline="")
        self._length = 0
        self._has_ended = False
        self._checks = 0
        self._next_offset = rule.stride(0)
        self._checked = 0
        """The text up to here has passed."""
        self._cut = 0
        """The text up to here may be shown, going by the checks before the end."""
        self._searched = 0
        """No place to cut lies between `_cut` and here."""
        self._is_blocked = False

    @property
    def text(self) -> str:
        """All that it was fed."""
        return self._text.getvalue()

    @property
    def due(self) -> Check | None:
        """The check to be made next, or None if there must be more text first."""
        if self._is_blocked:
            return None
        if self._next_offset <= self._length:
            return self._check_at(self._next_offset)
        if self._has_ended and self._checked < self._length:
            return self._check_at(self._length)
        return None

    @property
    def is_complete(self) -> bool:
        """Whether the text has ended and all of it has passed."""
        return self._has_ended and self._checked == self._length and not self._is_blocked

    @property
    def is_open(self) -> bool:
        """Whether nothing waits: the whole text has passed, or text is shown before it is checked."""
        return self.is_complete or (self._rule.mode == "async" and not self._is_blocked)

    @property
    def released(self) -> int:
        """How many characters may be shown. It never falls, and a block freezes it."""
        return self._length if self._rule.mode == "async" or self.is_complete else self._cut

    def feed(self, text: str) -> None:
        """Take more text. What comes after a block is not taken."""
        if not self._is_blocked:
            self._text.seek(0, io.SEEK_END)
            self._text.write(text)
            self._length += len(text)

    def end(self) -> None:
        """Take note that there is no more text."""
        self._has_ended = True

    def passed(self, check: Check) -> None:
        """Take note that the check that was due found nothing."""
        self._checked = check.offset
        if check.offset == self._next_offset:
            self._checks += 1
            self._next_offset += self._rule.stride(self._checks)
        if self._rule.mode == "hold_back":
            self._release(check.offset - self._rule.hold_chars)

    def block(self) -> None:
        """Show nothing more, whatever the text goes on to say."""
        self._is_blocked = True

    def _check_at(self, offset: int) -> Check:
        return Check(offset, self._between(max(0, offset - self._rule.context_chars), offset))

    def _release(self, limit: int) -> None:
        """Move the cut to the last place at or before `limit` where the text may be cut."""
        if limit <= self._searched:
            return
        text = self._between(self._searched, limit + 1)
        for end in range(len(text) - 1, 0, -1):
            if can_cut(text[end - 1], text[end]):
                self._cut = self._searched + end
                break
        self._searched = limit

    def _between(self, start: int, end: int) -> str:
        self._text.seek(start)
        return self._text.read(end - start)
