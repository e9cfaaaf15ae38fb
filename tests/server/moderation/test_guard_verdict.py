"""What a guard's answer means: the arithmetic of its first token, its spelling, and the codes in its second line."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from support.tiny_guard import guard_tokenizer
from turnwise_server.moderation.detector import DetectorError
from turnwise_server.moderation.guard_verdict import VerdictTokens, read_codes, spellings, unsafe_probability

LINE_ENDS = pre_tokenizers.Split("\n", "isolated")
KNOWN = frozenset({"S2", "S9", "S11"})


@given(st.floats(-30, 30), st.floats(-30, 30))
def test_the_probability_is_a_softmax_over_the_two_words(safe: float, unsafe: float) -> None:
    logits = torch.tensor([-1e9, safe, unsafe], dtype=torch.float64)
    expected = 1 / (1 + math.exp(safe - unsafe))
    assert unsafe_probability(logits, VerdictTokens((), 1, (2,))) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("other", [1.0, 50.0, math.inf, math.nan])
def test_there_is_no_verdict_where_something_else_is_likelier_than_both_words(other: float) -> None:
    with pytest.raises(DetectorError, match="no verdict"):
        unsafe_probability(torch.tensor([other, 0.0, 0.0]), VerdictTokens((), 1, (2,)))


@pytest.mark.parametrize(
    ("line", "codes"),
    [
        ("\nS11", ["S11"]),
        ("\nS2,S9", ["S2", "S9"]),
        ("\nS2, S9\nS11", ["S2", "S9"]),
        ("\n\nS2 ,S99", ["S2"]),
        (" S9\n", ["S9"]),
    ],
)
def test_hazards_are_read_from_the_first_line_that_has_any(line: str, codes: list[str]) -> None:
    assert read_codes(line, KNOWN) == codes


@pytest.mark.parametrize(
    "line", ["", "\n", "\nS99", "\nO3", "\nS2 is fine", "\nhazards: S2", "\nS2,", "S111"]
)
def test_a_line_that_is_no_list_of_known_hazards_is_a_failure(line: str) -> None:
    with pytest.raises(DetectorError):
        read_codes(line, KNOWN)


def word_pieces(*pieces: str, splits_at: pre_tokenizers.PreTokenizer = LINE_ENDS) -> PreTrainedTokenizerFast:
    """A tokenizer of whole pieces, the longest first."""
    tokenizer = Tokenizer(
        models.WordPiece({piece: place for place, piece in enumerate(pieces)}, unk_token="?")
    )
    tokenizer.pre_tokenizer = splits_at
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_the_verdict_is_told_by_the_first_token_that_the_two_words_do_not_share() -> None:
    in_pieces = word_pieces("?", "safe", "un", "##safe", "\n", " ")
    assert spellings(in_pieces)[0] == VerdictTokens((), 1, (2, 3))
    assert spellings(in_pieces)[2] == VerdictTokens((4,), 1, (2, 3))
    whole = guard_tokenizer()
    unsafe, safe, line_end = whole.convert_tokens_to_ids(["unsafe", "safe", "Ċ"])
    assert spellings(whole)[:2] == [
        VerdictTokens((), safe, (unsafe,)),
        VerdictTokens((line_end, line_end), safe, (unsafe,)),
    ]


def test_the_lead_is_shared_by_both_words_even_where_it_is_part_of_a_word() -> None:
    metaspace = pre_tokenizers.Metaspace(prepend_scheme="always")
    marked = word_pieces("?", "▁", "##safe", "##un", splits_at=metaspace)
    assert spellings(marked)[0] == VerdictTokens((1,), 2, (3, 2))


def test_words_that_the_tokenizer_cannot_tell_apart_are_no_spelling() -> None:
    assert spellings(word_pieces("?", "hello")) == []
