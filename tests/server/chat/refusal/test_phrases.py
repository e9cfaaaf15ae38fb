"""Lists of phrases are found as whole words, whatever their case."""

import time

import pytest

from turnwise_server.chat.refusal.canonical import canonical
from turnwise_server.chat.refusal.phrases import PhraseMatcher
from turnwise_server.chat.refusal.policy_file import DEFAULT_POLICY, load_policy

MATCHER = PhraseMatcher(
    {"medical": ["my symptoms", "how many pills"], "legal": ["can I sue", "c++ (2003)"], "none": []}
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("What do my symptoms mean?", {"medical"}),
        ("MY SYMPTOMS", {"medical"}),
        ("my\nsymptoms", {"medical"}),
        ("my  symptoms", {"medical"}),
        ("my\n\nsymptoms", {"medical"}),
        ("my symptomsology", set()),
        ("tummy symptoms", set()),
        ("Can i sue? How many pills?", {"medical", "legal"}),
        ("the c++ (2003) lawsuit", {"legal"}),
        ("c++ 2003", set()),
        ("", set()),
    ],
)
def test_phrases_are_found_as_whole_words(text: str, found: set[str]) -> None:
    assert MATCHER.scores(text) == {name: float(name in found) for name in ("medical", "legal")}


@pytest.mark.parametrize(
    "phrase",
    [
        "cafe\u0301 plan",  # as macOS writes it
        "co\u00adoperate",
        "№ 5",
        "k i t e",
        "sooooooo high",
        "\u2620\ufe0f sign",
        "don\u2019t fly",
        "H2O",
    ],
)
def test_a_phrase_is_found_whose_letters_the_canonical_form_writes_otherwise(phrase: str) -> None:
    text = canonical(f"Is it {phrase} or not?")
    assert PhraseMatcher({"kites": [phrase]}).scores(text) == {"kites": 1.0}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("今日は凧揚げをしました", 1.0),
        ("วันนี้ฉันเล่นว่าวที่สวน", 1.0),
        ("新しいkite凧", 1.0),
        ("新しいkiteです", 1.0),
        ("新しいkitesです", 0.0),
        ("今日は雨です", 0.0),
    ],
)
def test_words_of_scripts_without_spaces_are_found_inside_of_sentences(text: str, found: float) -> None:
    assert PhraseMatcher({"kites": ["凧揚げ", "ว่าว", "kite"]}).scores(text) == {"kites": found}


def test_a_long_text_is_read_in_linear_time() -> None:
    began = time.process_time()
    MATCHER.scores("my my sympto " * 100_000)
    assert time.process_time() - began < 3


def test_the_default_policy_asks_for_care_where_a_person_needs_advice_and_nowhere_else() -> None:
    detector = next(each for each in load_policy(DEFAULT_POLICY).policy.detectors if each.kind == "phrases")
    assert detector.phrases
    matcher = PhraseMatcher(detector.phrases)
    cautioned = {
        "advice_medical": "What dose should I give for these headaches?",
        "advice_legal": "My landlord keeps my deposit, what now?",
        "advice_financial": "Should I invest in bonds?",
    }
    for category, question in cautioned.items():
        assert matcher.scores(question)[category] == 1
    for harmless in (
        "What is a lawyer?",
        "Write a poem about money.",
        "How do vaccines work?",
        "Kill a process.",
    ):
        assert not any(matcher.scores(harmless).values())
