"""How texts share the passes of a network that pads them."""

from pathlib import Path

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import DistilBertForSequenceClassification

from support.classifiers import write_distilled_classifier
from turnwise_server.moderation.padded_network import PaddedNetwork, batches

lengths = st.lists(st.integers(1, 300), max_size=40)


def test_it_gives_the_logits_of_transformers(tmp_path: Path) -> None:
    path = write_distilled_classifier(tmp_path, ["safe", "unsafe"])
    texts = [[1, 4, 5, 2], [1, 9, 2]]
    model = DistilBertForSequenceClassification.from_pretrained(path)
    with torch.inference_mode():
        wanted = [model(torch.tensor([text])).logits[0].numpy() for text in texts]
    np.testing.assert_allclose(PaddedNetwork.load(path).logits(texts), wanted, atol=1e-5)


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
