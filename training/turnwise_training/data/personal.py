"""Finds what looks like personal data in texts, by its shape alone: it misses names and mistakes some numbers."""

import re
from collections.abc import Iterable, Iterator

from turnwise_training.data.rows import AnyRow, Row, contents

EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
PHONE = re.compile(r"(?<![\w.,-])\+?\(?\d[\d ().-]{7,}\d(?![\w,-])")
CARD = re.compile(r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)")


def personal_data(row: Row) -> set[str]:
    """Return which kinds of personal data a row seems to hold: e-mail address, phone number, card number."""
    return {kind for content in contents(row) for kind in _kinds(content)}


def drop_personal(rows: Iterable[AnyRow]) -> Iterator[AnyRow]:
    """Yield the rows in which `personal_data` finds none."""
    return (row for row in rows if not personal_data(row))


def _kinds(text: str) -> Iterator[str]:
    if "@" in text and EMAIL.search(text):
        yield "e-mail address"
    if any(_is_card(match[0]) for match in CARD.finditer(text)):
        yield "card number"
    if any(_is_phone(match[0]) for match in PHONE.finditer(text)):
        yield "phone number"


def _is_phone(text: str) -> bool:
    """Tell whether digits are as many as a number's, in at least three groups or behind a plus sign."""
    groups = re.findall(r"\d+", text)
    return 9 <= sum(map(len, groups)) <= 15 and (text.startswith("+") or 3 <= len(groups) <= 5)


def _is_card(text: str) -> bool:
    """Tell whether digits pass the checksum of payment cards (Luhn)."""
    digits = [int(character) for character in reversed(text) if character.isdigit()]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0
