"""Make text from elsewhere safe to show. It knows nothing of terminals beyond which characters command them."""

from __future__ import annotations

import re

_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_C1_OR_DELETE = re.compile(r"[\x7f-\x9f]")
_MAX_LINE_CHARS = 500


def _visible(match: re.Match[str]) -> str:
    char = match[0]
    if char == "\r":
        return ""
    if char < " ":
        return chr(0x2400 + ord(char))
    return "\u2421" if char == "\x7f" else "\ufffd"


def for_terminal(text: str) -> str:
    """Return `text` without anything a terminal would obey; newline and tab stay.

    C0 controls become their Unicode control pictures (ESC is shown as `␛`), carriage returns vanish, C1 controls and
    lone surrogates become U+FFFD. Each character is judged alone, so pieces of a text may be cleaned one by one.
    """
    return _UNSAFE.sub(_visible, text)


def one_line(text: str) -> str:
    """Return `text` safe for a terminal, on one line, shortened to a few lines' worth of characters."""
    line = " ".join(for_terminal(text).split())
    return line if len(line) <= _MAX_LINE_CHARS else line[: _MAX_LINE_CHARS - 1] + "…"


def json_for_terminal(document: str) -> str:
    """Escape, in a JSON document, the control characters that JSON itself lets through (DEL and C1)."""
    return _C1_OR_DELETE.sub(lambda match: f"\\u{ord(match[0]):04x}", document)


def valid_unicode(text: str) -> str:
    """Replace lone surrogates (what Python makes of undecodable arguments), so that `text` can be sent as UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")
