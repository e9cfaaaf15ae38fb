"""Texts rewritten for the detector: noise, frames and carriers. Every text here is harmless."""

import random
import re
from collections.abc import Iterator

import pytest

from support.attacks import WRAPPINGS
from turnwise_training.safety.augment import LONGEST, NOISE, augmented
from turnwise_training.safety.rows import SafetyRow
from turnwise_training.safety.wrappings import MOST_CARRIED, PARTS, Carrier, framed, piece

WISH = "how do I boil an egg"
PASSAGE = "The train left the valley and climbed between the pines. " * 30
SHORT = ("What is a fugue?", "Name three rivers.", "Tell me about bees.")


def row(text: str, *, unsafe: bool = False) -> SafetyRow:
    """Return a row of the source `one`."""
    return SafetyRow(text, unsafe, None if unsafe else frozenset(), "one", "MIT", "ordinary")


def words_of(parts: object) -> Iterator[list[str]]:
    """Yield the words of each string in lists and maps."""
    if isinstance(parts, str):
        yield re.findall(r"\w+", parts.lower())
    elif isinstance(parts, dict):
        yield from words_of(list(parts.values()))
    elif isinstance(parts, list):
        for part in parts:
            yield from words_of(part)


def runs(words: list[str], length: int) -> set[tuple[str, ...]]:
    """Return the runs of so many words."""
    return {tuple(words[at : at + length]) for at in range(len(words) - length + 1)}


@pytest.mark.parametrize("unsafe", [False, True])
def test_rewritten_rows_keep_their_label_and_source(unsafe: bool) -> None:
    rows = [row(WISH, unsafe=unsafe)]
    added = list(augmented(rows, share=3.0, seed=1))
    assert len(added) == 4
    assert added[0] == rows[0]
    assert {(each.source, each.unsafe, each.labels) for each in added} == {("one", unsafe, rows[0].labels)}


def test_a_share_is_that_of_rewritten_rows() -> None:
    rows = [row(f"{WISH} of {i} grams") for i in range(400)]
    assert 460 < len(list(augmented(rows, share=0.25, seed=1))) < 540


def test_long_harmless_texts_are_learnt_by_pieces_and_harmful_ones_whole() -> None:
    for each in augmented([row(PASSAGE), row(PASSAGE, unsafe=True)], share=0.0, seed=1):
        assert len(each.text) == len(PASSAGE) if each.unsafe else len(each.text) <= LONGEST


def test_a_carried_text_stands_whole_among_harmless_ones_and_within_a_window() -> None:
    draw, carrier = random.Random(1), Carrier([PASSAGE, *SHORT])
    found = [carrier.carried(WISH, draw) for _ in range(300)]
    assert all(WISH in text and len(text) > len(WISH) for text in found)
    assert max(map(len, found)) < MOST_CARRIED + 200
    assert any(text.endswith(WISH) for text in found)
    assert any(text.startswith(WISH) for text in found)
    assert sum("valley" in text or "pines" in text for text in found) > 50
    assert sum(any(short in text for short in SHORT) for text in found) > 50


def test_a_carrier_without_harmless_texts_still_gives_the_text() -> None:
    assert WISH in Carrier([]).carried(WISH, random.Random(1))


def test_framed_texts_stand_whole_and_frames_are_many() -> None:
    draw = random.Random(1)
    found = {framed(WISH, draw) for _ in range(500)}
    assert all(WISH in text for text in found)
    assert len(found) > 300


def test_braces_of_a_text_stay_in_a_frame() -> None:
    draw = random.Random(1)
    assert all("f{}{{x}}" in framed("f{}{{x}}", draw) for _ in range(200))


def test_a_piece_is_whole_words_of_the_text() -> None:
    found = piece(PASSAGE, 100, random.Random(1))
    assert found in PASSAGE
    assert 60 < len(found) <= 100
    assert set(found.split()) <= set(PASSAGE.split())
    assert piece("short", 100, random.Random(1)) == "short"


def test_noise_changes_the_spelling_and_not_the_length() -> None:
    for name, noise in NOISE.items():
        found = {noise(WISH, random.Random(seed)) for seed in range(9)}
        assert found != {WISH}, name
        assert {len(each) for each in found} == {len(WISH)}, name


def test_no_frame_that_is_learnt_shares_four_words_with_one_that_measures() -> None:
    measuring = set[tuple[str, ...]]().union(
        *(runs(re.findall(r"\w+", wrapping("").lower()), 4) for wrapping in WRAPPINGS.values())
    )
    for words in words_of(PARTS):
        assert not runs(words, 4) & measuring, words
