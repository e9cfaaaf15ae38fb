"""Tokenizers of checkpoints: what `AutoTokenizer` gives, without classes of models where they add nothing."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from support.tiny_checkpoints import write_tiny_checkpoint
from turnwise_server.chat.checkpoint_files import load_tokenizer
from turnwise_server.errors import CheckpointError


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_tiny_checkpoint(tmp_path)


def declare(checkpoint: Path, file: str, **values: object) -> None:
    """Change keys of a JSON file of the checkpoint."""
    content = json.loads((checkpoint / file).read_text())
    (checkpoint / file).write_text(json.dumps(content | values))


def test_a_tokenizer_that_is_all_in_its_file_is_read_as_auto_tokenizer_does(checkpoint: Path) -> None:
    expected = AutoTokenizer.from_pretrained(checkpoint)
    found = load_tokenizer(str(checkpoint))
    assert type(found) is type(expected)
    assert (found.chat_template, found.all_special_ids) == (expected.chat_template, expected.all_special_ids)
    assert found.encode("Hello wörld") == expected.encode("Hello wörld")


@pytest.mark.parametrize(
    ("file", "values", "is_generic"),
    [
        ("tokenizer_config.json", {}, True),
        ("tokenizer_config.json", {"tokenizer_class": "LlamaTokenizerFast"}, False),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["own.Tokenizer", None]}}, False),
        ("config.json", {"model_type": "qwen2"}, False),
    ],
)
def test_only_generic_tokenizers_go_without_the_models_classes(
    checkpoint: Path, file: str, values: dict[str, object], is_generic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def from_pretrained(model: str, **_: object) -> None:
        asked.append(model)
        raise OSError("asked")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", from_pretrained)
    declare(checkpoint, file, **values)
    if is_generic:
        load_tokenizer(str(checkpoint))
    else:
        with pytest.raises(CheckpointError, match="asked"):
            load_tokenizer(str(checkpoint))
    assert bool(asked) is not is_generic
