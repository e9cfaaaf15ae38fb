"""A broken model directory fails before anything is served, with the file's name and the remedy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from turnwise_server.engine.checkpoint import fingerprint, open_checkpoint
from turnwise_server.engine.loading import load_engine
from turnwise_server.engine.options import EngineOptions
from turnwise_server.errors import CheckpointError, ConfigurationError

Damage = Callable[[Path], object]


@pytest.fixture
def model(llama_dir: Path, tmp_path: Path) -> Path:
    """A copy of the tiny Llama to damage."""
    return Path(shutil.copytree(llama_dir, tmp_path / "model"))


def edit(file: Path, **changes: object) -> None:
    content: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(content | changes))


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def change_weights(model: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(model / "model.safetensors")
    change(weights)
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


def make_sharded(model: Path) -> None:
    (model / "model.safetensors").unlink()
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def replace_by_pickle(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


NORM = "model.layers.0.input_layernorm.weight"
DAMAGES: dict[str, tuple[Damage, str, str]] = {
    "no config": (lambda m: (m / "config.json").unlink(), "config.json is missing", "save_pretrained"),
    "config not JSON": (
        lambda m: (m / "config.json").write_text("{"),
        "config.json cannot be read",
        "Restore",
    ),
    "config not an object": (
        lambda m: (m / "config.json").write_text("[]"),
        "config.json does not hold",
        "Restore",
    ),
    "config of binary": (
        lambda m: (m / "config.json").write_bytes(b"\xff\xfe\x00"),
        "config.json cannot",
        "Restore",
    ),
    "no model type": (lambda m: edit(m / "config.json", model_type=None), "names no 'model_type'", "Restore"),
    "unknown architecture": (
        lambda m: edit(m / "config.json", model_type="frobnicator", auto_map={"AutoConfig": "evil.Config"}),
        "'frobnicator'",
        "Upgrade transformers",
    ),
    "not causal": (
        lambda m: edit(m / "config.json", model_type="t5", architectures=["T5ForConditionalGeneration"]),
        "T5ForConditionalGeneration, which is not a causal language model",
        "Choose",
    ),
    "classifier": (
        lambda m: edit(m / "config.json", architectures=["LlamaForSequenceClassification"]),
        "LlamaForSequenceClassification",
        "Choose",
    ),
    "no weights": (
        lambda m: (m / "model.safetensors").unlink(),
        "model.safetensors is missing",
        "Finish the download",
    ),
    "pickled weights": (replace_by_pickle, "pytorch_model.bin is a pickle", "save it again"),
    "missing shard": (make_sharded, "model-00001-of-00002.safetensors is missing", "Finish the download"),
    "truncated weights": (
        lambda m: truncate(m / "model.safetensors"),
        "model.safetensors is damaged",
        "again",
    ),
    "empty weights file": (
        lambda m: (m / "model.safetensors").write_bytes(b""),
        "model.safetensors is damaged",
        "again",
    ),
    "text as weights": (
        lambda m: (m / "model.safetensors").write_text("git-lfs"),
        "model.safetensors is damaged",
        "again",
    ),
    "missing weight": (
        lambda m: change_weights(m, lambda w: w.pop(NORM)),
        f"missing from .*model.safetensors, such as '{NORM}'",
        "save the model again",
    ),
    "wrong shape": (
        lambda m: change_weights(m, lambda w: w.update({NORM: torch.ones(7)})),
        f"another shape in .*model.safetensors, such as '{NORM}'",
        "save the model again",
    ),
    "config of another size": (
        lambda m: edit(m / "config.json", hidden_size=128, head_dim=32),
        "another shape in .*model.safetensors",
        "save the model again",
    ),
    "nonsense in config": (
        lambda m: edit(m / "config.json", num_hidden_layers="many"),
        "cannot be loaded",
        "config.json",
    ),
    "no tokenizer": (
        lambda m: (m / "tokenizer.json").unlink(),
        "tokenizer.json is missing",
        "save_pretrained",
    ),
    "tokenizer not JSON": (
        lambda m: (m / "tokenizer.json").write_text("?"),
        "tokenizer.json cannot be read",
        "Restore",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_directory_is_refused_by_name_and_with_a_remedy(model: Path, damage: str) -> None:
    break_it, says, remedy = DAMAGES[damage]
    break_it(model)
    with pytest.raises(CheckpointError, match=says) as caught:
        load_engine(EngineOptions(str(model), device="cpu", dtype="float32", threads=1, kv_memory_mb=16))
    assert remedy in str(caught.value)
    assert str(model) in str(caught.value)


@pytest.mark.parametrize("name", ["/no/such/model", "./missing", "missing", "a/b/c"])
def test_missing_directory_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match="There is no model directory"):
        open_checkpoint(name)


def test_file_instead_of_a_directory_is_refused(model: Path) -> None:
    with pytest.raises(CheckpointError, match="is a file"):
        open_checkpoint(model / "config.json")


def test_hub_name_that_cannot_be_had_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(CheckpointError, match="hub did not give a model"):
        open_checkpoint("somebody/something")


def test_hub_name_loads_what_the_hub_gives(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, allow_patterns: str(model))
    assert open_checkpoint("somebody/something").path == model


def test_stop_tokens_are_the_union_of_all_sources(model: Path) -> None:
    edit(model / "config.json", eos_token_id=3)
    edit(model / "generation_config.json", eos_token_id=[4, 5])
    added = [
        {"id": 6, "content": "</s>"},
        {"id": 7, "content": "<|im_end|>"},
        {"id": 8, "content": "<|eot_id|>"},
    ]
    edit(model / "tokenizer.json", added_tokens=added)
    edit(model / "tokenizer_config.json", eos_token="</s>")
    (model / "chat_template.jinja").write_text("{{ message.content }}<|im_end|>")
    assert open_checkpoint(model).stop_token_ids == {3, 4, 5, 6, 7}


def test_template_inside_the_tokenizers_settings_counts_too(model: Path) -> None:
    edit(
        model / "tokenizer_config.json",
        chat_template="{{ content }}<|eot_id|>",
        added_tokens_decoder={"9": {"content": "<|eot_id|>"}},
    )
    assert 9 in open_checkpoint(model).stop_token_ids


def test_fingerprint_follows_weights_configuration_and_number_format(model: Path) -> None:
    first = fingerprint(open_checkpoint(model), "float32")
    assert first == fingerprint(open_checkpoint(model), "float32")
    assert first != fingerprint(open_checkpoint(model), "bfloat16")
    change_weights(model, lambda w: w[NORM].mul_(1.01))
    second = fingerprint(open_checkpoint(model), "float32")
    edit(model / "config.json", rms_norm_eps=0.5)
    third = fingerprint(open_checkpoint(model), "float32")
    assert len({first, second, third}) == 3


def test_context_beyond_the_models_is_refused(model: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"512 tokens was asked for, but .* allows 256"):
        load_engine(EngineOptions(str(model), context_length=512))


def test_shorter_context_is_taken(model: Path) -> None:
    options = EngineOptions(str(model), device="cpu", threads=1, kv_memory_mb=16, context_length=100)
    assert load_engine(options)[1].context_length == 100
