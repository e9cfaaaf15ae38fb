"""Nothing that a terminal would obey survives."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwise_client.sanitise import for_terminal, json_for_terminal, one_line, valid_unicode

_COMMANDS = {chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))} - {"\n", "\t"}


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_no_control_character_or_surrogate_is_left(text: str) -> None:
    shown = for_terminal(text)

    assert not _COMMANDS & set(shown)
    shown.encode("utf-8")


@given(st.text(), st.integers(0, 50))
def test_pieces_may_be_cleaned_one_by_one(text: str, cut: int) -> None:
    assert for_terminal(text[:cut]) + for_terminal(text[cut:]) == for_terminal(text)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[31mred", "␛[31mred"),
        ("\x9b31m", "\ufffd31m"),
        ("a\r\nb\tc", "a\nb\tc"),
        ("\x7f\x00", "␡␀"),
        ("naïve 漢字 😀", "naïve 漢字 😀"),
    ],
)
def test_escapes_are_made_visible_and_text_is_kept(raw: str, shown: str) -> None:
    assert for_terminal(raw) == shown


@given(st.text())
def test_one_line_has_no_newline_and_an_end(text: str) -> None:
    line = one_line(text * 40)

    assert "\n" not in line
    assert len(line) <= 500


@given(st.text())
def test_escaped_json_means_the_same(text: str) -> None:
    document = json_for_terminal(json.dumps({"text": text}, ensure_ascii=False))

    assert json.loads(document) == {"text": text}
    assert not _COMMANDS & set(document)


def test_undecodable_arguments_can_be_sent() -> None:
    assert valid_unicode(b"caf\xe9".decode("utf-8", "surrogateescape")) == "caf?"
