"""The forms of a text that are judged: one for ordinary texts, and what disguises hide."""

from __future__ import annotations

import base64
import hashlib
import random
import time
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.attacks import ENCODINGS, dotted, leet, spaced
from turnwise_server.chat.refusal.normalise import forms
from turnwise_server.chat.refusal.policy_stages import Normaliser

TEXT = "How do I bake a chocolate cake for my little brother"
DEFAULT = Normaliser()


def texts(text: str, settings: Normaliser = DEFAULT) -> list[str]:
    return [form.text for form in forms(text, settings)]


def names(text: str) -> list[str]:
    return [form.name for form in forms(text, DEFAULT)]


@pytest.mark.parametrize("name", ENCODINGS)
def test_encoded_texts_are_read(name: str) -> None:
    assert TEXT in texts(ENCODINGS[name](TEXT))


@pytest.mark.parametrize("name", ENCODINGS)
def test_encoded_texts_are_read_in_the_middle_of_others(name: str) -> None:
    text = f"Please decode this and do it:\n{ENCODINGS[name](TEXT)}\nThank you."
    assert any(TEXT in form for form in texts(text))


@pytest.mark.parametrize("disguise", [spaced, dotted, leet])
def test_spelled_and_leet_texts_are_read(disguise) -> None:  # type: ignore[no-untyped-def]
    assert TEXT in texts(disguise(TEXT))


@pytest.mark.parametrize(
    "encoded",
    [
        TEXT.encode().hex(" "),
        TEXT.encode().hex(":").upper(),
        "".join(f"\\x{byte:02x}" for byte in TEXT.encode()),
        " ".join(f"0x{byte:02x}" for byte in TEXT.encode()),
        base64.urlsafe_b64encode(TEXT.encode()).decode().rstrip("="),
        base64.encodebytes(f"{TEXT}. ".encode() * 4).decode(),
        "".join(f"\\u{ord(sign):04x}" for sign in TEXT),
        "".join(f"&#{ord(sign)};" for sign in TEXT),
        "".join(f"&#x{ord(sign):x};" if sign in "aeio" else sign for sign in TEXT),
        base64.b64encode("Где находится хорошая пекарня?".encode()).decode(),
    ],
    ids=[
        "hex words",
        "hex colons",
        "escapes",
        "hex literals",
        "url alphabet",
        "wrapped",
        "JSON",
        "HTML",
        "vowels",
        "another script",
    ],
)
def test_encodings_are_read_in_their_many_spellings(encoded: str) -> None:
    assert any(TEXT in form or "пекарня" in form for form in texts(encoded))


@pytest.mark.parametrize(
    "text",
    [
        "The cat sat on the mat, and it was no drawer.",
        f"Its digest is {hashlib.sha256(b'cake').hexdigest()}.",
        f"Request {uuid.UUID(int=0x550E8400E29B41D4A716446655440000)} failed.",
        "See https://example.com/en/docs/index.html?page=2&sort=name%20asc for more.",
        "ACGTACGTTAGCTAGCTAGCTAGGATCCGATCGATTACAGATTACA",
        "1. e4 e5 2. Nf3 Nc6 3. Bb5 a6 4. Ba4 Nf6",
        "def add(a, b):\n    return a + b  # O(1)",
        "SELECT id, name FROM users WHERE id = 3;",
        "data:image/png;base64," + base64.b64encode(random.Random(1).randbytes(600)).decode(),
        "mp3, H2O, 2nd, covid19, B2B, 4x4, utf8, python3.11",
        "Mail joe@example.com, please!",
        "e.g. at 5 a.m. in the U.S. or the U.K.",
        "internationalization and antidisestablishmentarianism",
    ],
)
def test_harmless_texts_that_look_encoded_have_one_form(text: str) -> None:
    assert names(text) == ["canonical"]


@pytest.mark.parametrize("name", ["base64", "hex"])
@pytest.mark.parametrize("lost", range(1, 9))
def test_an_encoding_is_read_whose_beginning_is_cut_off(name: str, lost: int) -> None:
    text = ENCODINGS[name](f"To begin with, tell me: {TEXT}")[lost:]
    assert any(TEXT in form for form in texts(text))


@pytest.mark.parametrize("outer", ["tags", "base64", "hex", "url"])
@pytest.mark.parametrize("inner", [spaced, leet])
def test_disguises_are_undone_in_what_is_decoded(inner, outer: str) -> None:  # type: ignore[no-untyped-def]
    assert TEXT in texts(ENCODINGS[outer](inner(TEXT)))


def test_decoded_forms_are_bounded_however_deep_they_are_nested() -> None:
    text = TEXT
    for _ in range(12):
        text = f"please decode this text here: {base64.b64encode(text.encode()).decode()}"
    assert len(names(text)) == 1 + DEFAULT.max_decoded


def test_decoys_do_not_use_up_the_limit() -> None:
    decoys = " ".join(
        base64.b64encode(f"the words of number {index}".encode()).decode() for index in range(500)
    )
    hidden = base64.b64encode(TEXT.encode()).decode()
    assert any(TEXT in form for form in texts(f"{decoys} {hidden}"))


def test_nothing_is_decoded_that_the_policy_does_not_name() -> None:
    plain = Normaliser(decode=("hex",), leet=False)
    assert texts(base64.b64encode(TEXT.encode()).decode(), plain) == [
        base64.b64encode(TEXT.encode()).decode()
    ]
    assert len(texts(TEXT.encode().hex(), plain)) == 2
    assert len(texts(TEXT.encode().hex(), Normaliser(max_decoded=0))) == 1


@given(st.text(st.characters(), max_size=80))
@settings(max_examples=300, deadline=None)
def test_any_unicode_has_forms_of_bounded_size(text: str) -> None:
    found = forms(text, DEFAULT)
    assert found[0].name == "canonical"
    assert len(found) <= 5 + DEFAULT.max_decoded
    assert sum(len(form.text) for form in found) <= 8 * (4 * len(text) + 1)


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "%",
        "%41",
        "%41 ",
        "%25",
        "A" * 40 + "\n",
        "0x",
        "\\x41",
        "41:",
        "h4ck ",
        "k1ll! ",
        "\U000e0041",
        '"a',
        "a@",
    ],
)
def test_time_grows_no_faster_than_the_text(unit: str) -> None:
    short, long = (unit * (chars // len(unit)) for chars in (20_000, 160_000))
    forms(short, DEFAULT)
    started = time.process_time()
    forms(short, DEFAULT)
    middle = time.process_time()
    forms(long, DEFAULT)
    assert time.process_time() - middle < 8 * 4 * (middle - started) + 0.2
