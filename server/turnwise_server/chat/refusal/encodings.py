"""Finds what is encoded in a text and decodes it: base64, hexadecimal, escapes, rot13, letters backwards. Pure.

Each decoder takes a text and returns all that it found in it, as one text, "" for nothing: decoys in front of a piece
cannot use up a limit. None returns more than it read. Whether the result is worth judging is `readable`'s business.
"""

from __future__ import annotations

import binascii
import codecs
import re
from collections.abc import Callable, Iterable, Mapping
from html import unescape
from itertools import islice
from types import MappingProxyType
from typing import Final, Literal
from urllib.parse import unquote

from turnwise_server.chat.refusal.readable import common_words, is_printable

Encoding = Literal["base64", "hex", "rot13", "url", "reversed"]

_BASE64_LINES: Final = re.compile(r"(?<=[A-Za-z0-9+/]{40})\n(?=[A-Za-z0-9+/])")
"""A line break inside of one piece: base64 is wrapped at 64 or 76 characters."""
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]{16,}")
_BASE64_URL: Final = str.maketrans("-_", "+/")
_HEX_NOISE: Final = re.compile(r"\\x|\b0x|(?<=[0-9a-fA-F]{2})[ :,\-\n](?=(?:\\x|0x)?[0-9a-fA-F]{2})")
_HEX: Final = re.compile(r"(?<![0-9A-Za-z])(?:[0-9a-f]{16,}|[0-9A-F]{16,})")
_ESCAPE: Final = re.compile(r"%[0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4}|&#(?:[0-9]{1,7}|[xX][0-9A-Fa-f]{1,6});")
"""As URLs, JSON and HTML write characters."""
_JSON_ESCAPES: Final = re.compile(r"(?:\\u[0-9A-Fa-f]{4})+")
_MIN_ESCAPES: Final = 3
_SENTENCE_END: Final = re.compile(r"[.!?:;\n\"]+")
_LETTERS: Final = re.compile("[a-z]{3,}")


def from_base64(text: str) -> str:
    """Return what the base64 in a text decodes to, of either alphabet, whole or wrapped."""
    unwrapped = _BASE64_LINES.sub("", text.translate(_BASE64_URL))
    return _texts(_base64_bytes, (match[0] for match in _BASE64.finditer(unwrapped)), 4)


def _base64_bytes(piece: str) -> bytes:
    whole = piece[: len(piece) - (len(piece) % 4 == 1)]
    return binascii.a2b_base64(whole + "=" * (-len(whole) % 4))


def from_hex(text: str) -> str:
    """Return what the hexadecimal bytes in a text say: `68656c6c6f`, `68 65`, `0x68`, `\\x68`."""
    return _texts(_hex_bytes, (match[0] for match in _HEX.finditer(_HEX_NOISE.sub("", text))), 2)


def _hex_bytes(piece: str) -> bytes:
    return binascii.unhexlify(piece[: len(piece) & ~1])


def from_url(text: str) -> str:
    """Return a text that holds several escapes of URLs, JSON or HTML without them: `%68`, `\\u0068`, `&#104;`."""
    if sum(1 for _ in islice(_ESCAPE.finditer(text), _MIN_ESCAPES)) < _MIN_ESCAPES:
        return ""
    return unquote(unescape(_JSON_ESCAPES.sub(_from_json, text)))


def _from_json(match: re.Match[str]) -> str:
    """Return the characters of a run of JSON's escapes, two of which may be one character."""
    return bytes.fromhex(match[0].replace("\\u", "")).decode("utf-16-be", "replace")


def from_rot13(text: str) -> str:
    """Return the sentences of a text that are words only once their letters are moved by 13."""
    sentences = _SENTENCE_END.split(text)
    return _clearer((sentence, codecs.encode(sentence, "rot13")) for sentence in sentences)


def from_reversed(text: str) -> str:
    """Return the lines of a text that are words only when read backwards."""
    return _clearer((line, line[::-1]) for line in text.split("\n"))


DECODERS: Final[Mapping[Encoding, Callable[[str], str]]] = MappingProxyType(
    {
        "base64": from_base64,
        "hex": from_hex,
        "url": from_url,
        "rot13": from_rot13,
        "reversed": from_reversed,
    }
)


def _texts(decode: Callable[[str], bytes], pieces: Iterable[str], digits: int) -> str:
    """Return what pieces say that may have lost their beginning, as in a window: `digits` make up whole bytes."""
    readings = (
        (decode(piece[start:]).decode("utf-8", "replace") for start in range(digits)) for piece in pieces
    )
    return "\n".join(filter(None, (next(filter(is_printable, reading), "") for reading in readings)))


def _clearer(pairs: Iterable[tuple[str, str]]) -> str:
    """Return the second text of every pair that has become words: noise holds a few common ones by chance."""
    return "\n".join(after for before, after in pairs if _has_become_words(before, after))


def _has_become_words(before: str, after: str) -> bool:
    candidates = _LETTERS.findall(after.lower())
    common = _common(candidates)
    least = max(2, len(candidates) / 5)
    return common >= least and common >= 2 * _common(_LETTERS.findall(before.lower()))


def _common(candidates: list[str]) -> int:
    return sum(map(common_words().__contains__, candidates))
