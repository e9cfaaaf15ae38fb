"""Makes small sequence classifiers of random weights, as Hugging Face directories."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedModel,
)

WORDS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", *"abcdefghij")


def write_classifier(
    folder: Path,
    labels: Sequence[str],
    *,
    problem_type: str | None = None,
    max_length: int = 32,
    layers: int = 1,
) -> Path:
    """Write a tiny BERT classifier whose tokens are the words a to j, and return its directory."""
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=max_length,
        initializer_range=0.5,
        id2label=dict(enumerate(labels)),
        label2id={label: place for place, label in enumerate(labels)},
        problem_type=problem_type,
    )
    return _save(BertForSequenceClassification(config), folder)


def write_distilled_classifier(folder: Path, labels: Sequence[str]) -> Path:
    """Write the same of another architecture, DistilBERT."""
    torch.manual_seed(7)
    config = DistilBertConfig(
        vocab_size=len(WORDS),
        dim=16,
        n_layers=2,
        n_heads=2,
        hidden_dim=32,
        max_position_embeddings=32,
        initializer_range=0.5,
        id2label=dict(enumerate(labels)),
        label2id={label: place for place, label in enumerate(labels)},
    )
    return _save(DistilBertForSequenceClassification(config), folder)


def _save(model: PreTrainedModel, folder: Path) -> Path:
    model.save_pretrained(folder)
    tokenizer = Tokenizer(WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def change_json(file: Path, **values: object) -> None:
    """Set keys of a JSON file; None takes a key away. A link is replaced by a file."""
    content = json.loads(file.read_text()) | values
    file.unlink()
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def change_weight(file: Path, name: str, value: torch.Tensor | None) -> None:
    """Replace a tensor of a safetensors file; None takes it away."""
    weights = load_file(file) | ({} if value is None else {name: value})
    if value is None:
        del weights[name]
    file.unlink()
    save_file(weights, file, {"format": "pt"})
