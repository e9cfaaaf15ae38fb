"""BERT without padding: the logits of `transformers`, and nothing but the models it can compute."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertForSequenceClassification

from support.classifiers import change_json, change_weight, write_classifier, write_distilled_classifier
from turnwise_server.moderation.classifier import PACKAGED_DIRECTORY
from turnwise_server.moderation.packed_bert import PackedBert, packed_bert, passes

LABELS = ["safe", "unsafe"]
token_ids = st.lists(st.integers(0, 13), min_size=1, max_size=32)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("bert"), LABELS, layers=3)


@pytest.fixture(scope="module")
def network(path: Path) -> PackedBert:
    found = packed_bert(path)
    assert found
    return found


@pytest.fixture(scope="module")
def reference(path: Path) -> Any:
    return BertForSequenceClassification.from_pretrained(path)


@given(st.lists(token_ids, min_size=1, max_size=6))
def test_texts_that_share_a_pass_get_the_logits_that_transformers_gives_each(
    network: PackedBert, reference: Any, texts: list[list[int]]
) -> None:
    with torch.inference_mode():
        wanted = [reference(torch.tensor([text])).logits[0].numpy() for text in texts]
    np.testing.assert_allclose(network.logits(texts), wanted, atol=2e-5)


def test_the_shipped_detector_is_computed_here() -> None:
    assert packed_bert(PACKAGED_DIRECTORY)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "relu"},
        {"position_embedding_type": "relative_key"},
        {"is_decoder": True},
        {"num_hidden_layers": 4},
        {"intermediate_size": 64},
        {"num_attention_heads": 3},
        {"architectures": ["BertForMaskedLM"]},
        {"hidden_size": "wide"},
    ],
)
def test_other_models_than_those_are_left_to_others(tmp_path: Path, change: dict[str, object]) -> None:
    path = write_classifier(tmp_path, LABELS, layers=3)
    change_json(path / "config.json", **change)
    assert packed_bert(path) is None


def test_another_architecture_is_left_to_others(tmp_path: Path) -> None:
    assert packed_bert(write_distilled_classifier(tmp_path, LABELS)) is None


def test_weights_that_lack_one_are_left_to_others_who_say_what_is_wrong(tmp_path: Path) -> None:
    path = write_classifier(tmp_path, LABELS)
    change_weight(path / "model.safetensors", "classifier.bias", None)
    assert packed_bert(path) is None


@given(st.lists(st.lists(st.just(1), min_size=1, max_size=700), max_size=12))
def test_passes_hold_every_text_in_order_and_256_tokens_unless_one_text_has_more(
    texts: list[list[int]],
) -> None:
    found = list(passes(texts))
    assert [text for batch in found for text in batch] == texts
    assert all(len(batch) == 1 or sum(map(len, batch)) <= 256 for batch in found)
