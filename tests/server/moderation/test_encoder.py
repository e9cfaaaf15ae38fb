"""Which pieces of texts an encoder reads, and what computes their logits."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from support.classifiers import write_classifier, write_distilled_classifier
from turnwise_server.moderation.classifier_files import open_classifier
from turnwise_server.moderation.encoder import Encoder


def test_a_text_of_many_tokens_is_read_in_its_first_middle_and_last_piece(tmp_path: Path) -> None:
    encoder = Encoder.load(open_classifier(write_classifier(tmp_path, ["safe", "unsafe"], max_length=12)))
    pieces, places = encoder.pieces(["a b c", "a " * 40 + "b " * 40 + "c " * 40])
    assert places == [0, 1, 1, 1]
    assert [piece.tokens[1:-1] for piece in pieces] == [[*"abc"], ["a"] * 10, ["b"] * 10, ["c"] * 8]


def test_neighbouring_pieces_share_half_of_their_tokens(tmp_path: Path) -> None:
    encoder = Encoder.load(open_classifier(write_classifier(tmp_path, ["safe", "unsafe"], max_length=12)))
    pieces, _ = encoder.pieces(["a b c d e f g h i j a b"])
    assert [piece.tokens[1:-1] for piece in pieces] == [[*"abcdefghij"], [*"efghijab"]]


@pytest.mark.parametrize("write", [write_classifier, write_distilled_classifier])
def test_logits_of_texts_do_not_depend_on_their_company(
    tmp_path: Path, write: Callable[[Path, list[str]], Path]
) -> None:
    encoder = Encoder.load(open_classifier(write(tmp_path, ["safe", "unsafe"])))
    texts = ["a b c", "", "d " * 20, "e f"]
    together = encoder.logits(encoder.pieces(texts)[0])
    alone = [encoder.logits(encoder.pieces([text])[0])[0] for text in texts]
    np.testing.assert_allclose(together, alone, atol=1e-5)
