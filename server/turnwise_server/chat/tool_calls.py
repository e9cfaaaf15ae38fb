"""Finds tool calls in streamed text: text in, content and calls out. Pure: no tokens, no HTTP.

The outcome depends on the text alone, never on how it was cut into pieces. What is no call after all (broken JSON, a
tool that does not exist, the mere beginning of a marker) comes back as content, character for character.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable, Collection
from dataclasses import dataclass

from turnwise_server.chat.call_form import CallForm
from turnwise_server.chat.call_scanner import CallScanner, Progress
from turnwise_server.chat.stop_strings import overlap

_ID_ALPHABET = string.ascii_letters + string.digits
_ID_LENGTH = 24


@dataclass(frozen=True, slots=True)
class CallDelta:
    """More of call number `call`: `id` and `name` come once, at its beginning, and then pieces of its arguments."""

    call: int
    arguments: str
    id: str | None = None
    name: str | None = None


Output = str | CallDelta
"""Content, or more of a call."""


def new_call_id() -> str:
    """Make the id of a call: `call_` and 24 letters and digits."""
    return "call_" + "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))


class ToolCallParser:
    """Splits a reply into content and calls of the tools in `names`, in the form that the chat template writes.

    With `is_certain` (a grammar holds the model to that form) arguments are handed out as they come; without it a call
    is held back until it is complete, so that what turns out to be none can still become content. With `max_calls`
    reached, `is_complete` says that nothing more counts.
    """

    def __init__(
        self,
        form: CallForm,
        names: Collection[str],
        *,
        is_certain: bool = False,
        has_begun: bool = False,
        max_calls: int | None = None,
        new_id: Callable[[], str] = new_call_id,
    ) -> None:
        """`has_begun`: the marker before the first call stands at the end of the prompt already."""
        self._form = form
        self._names = names
        self._is_certain = is_certain
        self._max_calls = max_calls
        self._new_id = new_id
        self._held = ""
        """Text whose meaning is open: maybe a marker, or a call that is not complete."""
        self._read = 0
        """How much of `_held` the scanner has taken."""
        self._state = self._before_object if has_begun else self._in_text
        self._scanner = self._new_scanner()
        self._awaits_bracket = form.is_list
        self._is_at_start = not form.marker
        self._end_is_due = False
        self._sent: int | None = None
        """How many characters of the current call's arguments are out; None if it is held back."""
        self.calls = 0

    @property
    def held(self) -> int:
        """How many characters, at the end of the text so far, may still become something else."""
        return len(self._held) if self._sent is None else 0

    @property
    def is_complete(self) -> bool:
        """Whether as many calls were made as may be."""
        return self._max_calls is not None and self.calls >= self._max_calls and self._sent is None

    def feed(self, text: str) -> list[Output]:
        """Take more text and return what it makes certain."""
        self._held += text
        outputs: list[Output] = []
        while not self.is_complete and self._state(outputs):
            pass
        return outputs

    def finish(self, *, is_cut: bool) -> list[Output]:
        """Return what was held back, now that no more comes. A call that was cut short (`is_cut`) keeps its part."""
        outputs: list[Output] = []
        if self._sent is None and is_cut and self._state == self._in_object:
            self._open_call(outputs)
        is_form = self._state == self._after_object or (self.calls > 0 and self._held.isspace())
        if self._sent is None and not is_form and not self.is_complete:
            self._give(self._held, outputs)
        return outputs

    def _in_text(self, outputs: list[Output]) -> bool:
        """Look for the first marker; without one, for an object at the very start. Return whether to go on."""
        marker = self._form.marker
        if not marker:
            return self._bare_start(outputs)
        at = self._held.find(marker)
        end = at if at >= 0 else len(self._held) - overlap(self._held, marker)
        content = self._held[:end].rstrip()
        self._give(content, outputs)
        if at < 0:
            return False
        self._begin_call(self._held.index(marker) + len(marker), in_list=False)
        return True

    def _bare_start(self, outputs: list[Output]) -> bool:
        start = self._held.lstrip()
        if self._is_at_start and not start:
            return False
        if self._is_at_start and start[0] in ("[" if self._form.is_list else "{"):
            self._begin_call(0, in_list=False)
            return True
        self._is_at_start = False
        self._give(self._held, outputs)
        return False

    def _begin_call(self, read: int, *, in_list: bool) -> None:
        self._read = read
        self._awaits_bracket = self._form.is_list and not in_list
        self._scanner = self._new_scanner()
        self._sent = None
        self._state = self._before_object

    def _before_object(self, outputs: list[Output]) -> bool:
        """Skip space, and a list's bracket, up to the object."""
        for char in self._held[self._read :]:
            if char == "[" and self._awaits_bracket:
                self._awaits_bracket = False
            elif char == "{":
                self._state = self._in_object
                return True
            elif not char.isspace():
                return self._give_back(self._read, outputs)
            self._read += 1
        return False

    def _in_object(self, outputs: list[Output]) -> bool:
        while self._read < len(self._held):
            progress = self._scanner.feed(self._held[self._read])
            if progress is Progress.BROKEN:
                return self._give_back(self._read, outputs)
            self._read += 1
            if progress is Progress.CLOSED:
                return self._close_call(outputs)
        if self._is_certain:
            self._open_call(outputs)
        return False

    def _open_call(self, outputs: list[Output]) -> None:
        """Hand out as much of the arguments as there is, if it is clear by now which tool is called."""
        piece = self._scanner.arguments_after(self._sent or 0)
        if piece is None:
            return
        if self._sent is None:
            self._announce(self._scanner.name or "", outputs)
            self._sent = 0
        if piece:
            outputs.append(CallDelta(self.calls - 1, piece))
            self._sent += len(piece)

    def _close_call(self, outputs: list[Output]) -> bool:
        if self._sent is not None:
            self._open_call(outputs)
        else:
            call = self._scanner.call()
            if call is None:
                return self._give_back(self._read, outputs)
            self._announce(call.name, outputs)
            outputs.append(CallDelta(self.calls - 1, call.arguments))
        self._held = self._held[self._read :]
        self._sent = None
        self._end_is_due = bool(self._form.end_marker)
        self._state = self._after_object
        return True

    def _announce(self, name: str, outputs: list[Output]) -> None:
        outputs.append(CallDelta(self.calls, "", self._new_id(), name))
        self.calls += 1

    def _after_object(self, outputs: list[Output]) -> bool:  # noqa: ARG002 - a state like the others
        """Skip what the template writes after a call; find out whether another follows, or text."""
        text = self._held.lstrip()
        markers = [self._form.next_marker, self._form.last_marker]
        if self._end_is_due:
            markers.insert(0, self._form.end_marker)
        found = next((marker for marker in markers if marker and text.startswith(marker)), None)
        if found is None:
            if any(marker.startswith(text) for marker in markers if marker):
                return False
            self._state = self._in_text
            return True
        self._held = text
        if found == self._form.end_marker and self._end_is_due:
            self._end_is_due = False
        elif found == self._form.next_marker:
            self._begin_call(len(found), in_list=True)
            return True
        else:
            self._state = self._in_text
        self._held = text[len(found) :]
        return True

    def _give_back(self, end: int, outputs: list[Output]) -> bool:
        """The first `end` characters held are no call: they are content, unless they were handed out as one."""
        self._state = self._in_text
        self._is_at_start = False
        if self._sent is None:
            self._give(self._held[:end], outputs)
        else:
            self._held = self._held[end:]
        self._sent = None
        return True

    def _give(self, content: str, outputs: list[Output]) -> None:
        self._held = self._held[len(content) :]
        if content:
            outputs.append(content)

    def _new_scanner(self) -> CallScanner:
        return CallScanner(self._form.wrapper.name_key, self._form.wrapper.arguments_key, self._names)
