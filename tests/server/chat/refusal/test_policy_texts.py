"""The words of a refusal follow the client's language, and the resources its country."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.policy_cases import MINIMAL
from turnwise_server.chat.refusal.policy_file import DEFAULT_POLICY, load_policy
from turnwise_server.chat.refusal.policy_texts import caution_text, stop_text

CATEGORIES = {category.id: category for category in load_policy(MINIMAL).policy.categories}
CRISIS = next(each for each in load_policy(DEFAULT_POLICY).policy.categories if each.id == "self_harm")
ENGLISH, NORWEGIAN = "I can't help with that.", "Det kan jeg ikke hjelpe med."


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ("", ENGLISH),
        ("no", NORWEGIAN),
        ("NO-no", NORWEGIAN),
        ("fr, no;q=0.5", NORWEGIAN),
        ("no;q=0.1, en;q=0.9", ENGLISH),
        ("no;q=0, fr", ENGLISH),
        ("en-GB,en;q=0.9", ENGLISH),
        ("*", ENGLISH),
        ("no;q=high", ENGLISH),
        (", ,;;q=1,no", NORWEGIAN),
    ],
)
def test_a_refusal_is_said_in_the_most_wanted_language_there_is(header: str, text: str) -> None:
    assert stop_text(CATEGORIES["everything"], header, "en") == text


@pytest.mark.parametrize(
    ("header", "help_there"),
    [
        ("", "findahelpline.com"),
        ("en-US,en;q=0.9", "988"),
        ("en-gb", "116 123"),
        ("fr-CA, fr", "988"),
        ("pt-BR", "findahelpline"),
    ],
)
def test_help_is_named_where_the_person_is(header: str, help_there: str) -> None:
    text = stop_text(CRISIS, header, "en")
    assert help_there in text
    assert "{resources}" not in text


def test_a_caution_is_there_only_where_the_policy_has_one() -> None:
    assert caution_text(CATEGORIES["advice"], "de", "en") == "I'm no doctor."
    assert caution_text(CATEGORIES["everything"], "de", "en") == ""


@given(st.text(max_size=200))
def test_every_header_gives_some_text(header: str) -> None:
    assert stop_text(CRISIS, header, "en")


def test_a_huge_header_is_read_in_part() -> None:
    assert stop_text(CATEGORIES["everything"], "fr," * 100_000 + "no", "en") == ENGLISH
