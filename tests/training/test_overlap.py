"""The stand-in for labelers: overlap of an answer with the demonstration's reply."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwise_training.data import Prompt
from turnwise_training.episodes import Episode, Sample
from turnwise_training.errors import DataError
from turnwise_training.overlap import overlap_rewards, rouge_l
from turnwise_training.prompts import REFERENCE

TEXTS = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=8).map(" ".join)


def episode(reply: str, reference: object, *, ended: bool = True) -> Episode:
    return Episode(Prompt((), {REFERENCE: reference}), [1], Sample([1], ended, [0.0]), reply)


def longest_common(a: list[str], b: list[str]) -> int:
    """Return the length of the longest common subsequence, by trying everything."""
    if not a or not b:
        return 0
    if a[0] == b[0]:
        return 1 + longest_common(a[1:], b[1:])
    return max(longest_common(a[1:], b), longest_common(a, b[1:]))


@pytest.mark.parametrize(
    ("answer", "reference", "wanted"),
    [
        ("the cat sat", "the cat sat", 1.0),
        ("the cat sat", "The CAT, sat.", 2 * 3 / (3 + 5)),
        ("sat cat the", "the cat sat", 2 * 1 / 6),
        ("dog", "cat", 0.0),
        ("", "cat", 0.0),
        ("", "", 1.0),
    ],
)
def test_rouge_l_of_known_texts(answer: str, reference: str, wanted: float) -> None:
    assert rouge_l(answer, reference) == pytest.approx(wanted)


@given(TEXTS, TEXTS)
def test_rouge_l_is_the_f1_of_the_longest_common_subsequence(answer: str, reference: str) -> None:
    a, b = answer.split(), reference.split()
    wanted = 2 * longest_common(a, b) / (len(a) + len(b)) if a and b else float(a == b)
    assert rouge_l(answer, reference) == pytest.approx(wanted)
    assert rouge_l(reference, answer) == pytest.approx(wanted)


def test_answers_that_differ_by_little_tie_and_an_unfinished_one_loses_half() -> None:
    reference = "one two three four five six seven eight nine ten eleven twelve thirteen"
    near = reference.replace("seven", "six")
    episodes = [
        episode(reference, reference),
        episode(near + " fourteen", near),
        episode(reference, reference, ended=False),
    ]
    assert overlap_rewards(episodes) == [1.0, 1.0, 0.5]


def test_a_prompt_without_a_reference_is_an_error() -> None:
    with pytest.raises(DataError, match="no reference reply"):
        overlap_rewards([episode("x", None)])
