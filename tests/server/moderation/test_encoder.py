"""Which pieces of texts an encoder reads, and how texts share forward passes."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from support.classifiers import write_classifier
from turnwise_server.moderation.classifier_files import open_classifier
from turnwise_server.moderation.encoder import Encoder, batches

lengths = st.lists(st.integers(1, 300), max_size=40)


def test_a_text_of_many_tokens_is_read_in_its_first_middle_and_last_piece(tmp_path: Path) -> None:
    encoder = Encoder.load(open_classifier(write_classifier(tmp_path, ["safe", "unsafe"], max_length=12)))
    pieces, places = encoder.pieces(["a b c", "a " * 40 + "b " * 40 + "c " * 40])
    assert places == [0, 1, 1, 1]
    assert [piece.tokens[1:-1] for piece in pieces] == [[*"abc"], ["a"] * 10, ["b"] * 10, ["c"] * 8]


def test_neighbouring_pieces_share_half_of_their_tokens(tmp_path: Path) -> None:
    encoder = Encoder.load(open_classifier(write_classifier(tmp_path, ["safe", "unsafe"], max_length=12)))
    pieces, _ = encoder.pieces(["a b c d e f g h i j a b"])
    assert [piece.tokens[1:-1] for piece in pieces] == [[*"abcdefghij"], [*"efghijab"]]


def test_texts_of_like_length_share_a_pass() -> None:
    assert list(batches([10, 100, 12, 11], can_pad=True)) == [[0, 3, 2], [1]]


def test_a_pass_has_at_most_256_tokens() -> None:
    assert [len(batch) for batch in batches([100] * 5, can_pad=True)] == [2, 2, 1]
    assert list(batches([512, 512], can_pad=True)) == [[0], [1]]


def test_without_padding_each_text_has_a_pass() -> None:
    assert list(batches([10, 10], can_pad=False)) == [[0], [1]]


@given(lengths)
def test_each_text_is_in_one_pass_and_little_is_padding(found: list[int]) -> None:
    passes = list(batches(found, can_pad=True))
    assert sorted(place for batch in passes for place in batch) == list(range(len(found)))
    for batch in passes:
        tokens = [found[place] for place in batch]
        assert max(tokens) <= 1.25 * min(tokens) + 8
        assert len(tokens) == 1 or max(tokens) * len(tokens) <= 256
