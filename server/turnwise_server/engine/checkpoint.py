"""Reads and verifies a model directory before anything heavy happens: every fault names the file and the remedy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turnwise_server.errors import CheckpointError

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
_PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_HUB_PATTERNS = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
_END_OF_TURN = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<|end|>",
    "<|endofturn|>",
    "<|end_of_turn|>",
)
"""What chat templates in use write after a turn; counted where the checkpoint's own template does."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A directory that holds a causal language model, its weights in safetensors, and a tokenizer."""

    path: Path
    config: Json
    weight_files: tuple[Path, ...]
    stop_token_ids: frozenset[int]

    @property
    def context_length(self) -> int | None:
        """Return how many tokens the model was made for, None if the configuration does not say."""
        for source in (self.config, self.config.get("text_config") or {}):
            for key in _CONTEXT_KEYS:
                if isinstance(source.get(key), int):
                    return int(source[key])
        return None


def open_checkpoint(model: str | Path) -> Checkpoint:
    """Find a model by its directory or its Hugging Face hub name, and verify it.

    Raises:
        CheckpointError: something is missing, damaged or not supported.
    """
    path = _locate(model)
    config = _read_config(path)
    weight_files = _find_weights(path)
    for file in weight_files:
        _verify_safetensors(file)
    if not any((path / name).is_file() for name in _TOKENIZER_FILES):
        raise CheckpointError(
            f"{path / 'tokenizer.json'} is missing. Copy the tokenizer's files from where the model came from, "
            "or save them there with tokenizer.save_pretrained()."
        )
    return Checkpoint(path, config, weight_files, _stop_token_ids(path, config))


def fingerprint(checkpoint: Checkpoint, number_format: str) -> str:
    """Return a hex digest over configuration, weights and number format: equal ones generate equally."""
    digest = hashlib.sha256(number_format.encode())
    for file in (checkpoint.path / "config.json", *checkpoint.weight_files):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _locate(model: str | Path) -> Path:
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise CheckpointError(f"{path} is a file. Give the directory that holds config.json and the weights.")
    name = str(model)
    if name.count("/") != 1 or name.startswith((".", "~", "/")):
        raise CheckpointError(
            f"There is no model directory {path}. Give a directory, or a hub name such as 'organisation/model'."
        )
    return _download(name)


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(_HUB_PATTERNS)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"There is no directory {name!r}, and the Hugging Face hub did not give a model of that name "
            f"({type(error).__name__}). Check the name and the connection, or give a directory."
        ) from error


def _read_config(path: Path) -> Json:
    file = path / "config.json"
    if not file.is_file():
        raise CheckpointError(
            f"{file} is missing. Give a directory made by save_pretrained(), not one above or below it."
        )
    config = _read_json(file)
    if not isinstance(config.get("model_type"), str):
        raise CheckpointError(
            f"{file} names no 'model_type'. Restore the file from where the model came from."
        )
    return config


def _read_json(file: Path) -> Json:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(
            f"{file} cannot be read as JSON: {error}. Restore it from where the model came from."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{file} does not hold a JSON object. Restore it from where the model came from."
        )
    return content


def _find_weights(path: Path) -> tuple[Path, ...]:
    index = path / "model.safetensors.index.json"
    if index.is_file():
        names = sorted({str(name) for name in _read_json(index).get("weight_map", {}).values()})
        missing = [name for name in names if not (path / name).is_file()]
        if missing or not names:
            raise CheckpointError(
                f"{path / missing[0] if missing else index} is missing or empty, though {index.name} counts on it. "
                "Finish the download of the model."
            )
        return tuple(path / name for name in names)
    single = path / "model.safetensors"
    if single.is_file():
        return (single,)
    pickles = [file.name for pattern in _PICKLE_PATTERNS for file in sorted(path.glob(pattern))]
    if pickles:
        raise CheckpointError(
            f"{path / pickles[0]} is a pickle, which can run any code when it is read. Load the model where you "
            "trust it and save it again with save_pretrained(), which writes model.safetensors."
        )
    raise CheckpointError(
        f"{single} is missing. Finish the download of the model, or save it with save_pretrained()."
    )


def _verify_safetensors(file: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as tensors:
            is_empty = not list(tensors.keys())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file} is damaged or cut short: {error}. Download or save the model again."
        ) from error
    if is_empty:
        raise CheckpointError(f"{file} holds no weights. Download or save the model again.")


def _stop_token_ids(path: Path, config: Json) -> frozenset[int]:
    """Return every id that ends a reply: of the generation settings, the configuration, the tokenizer, the template."""
    generation_file = path / "generation_config.json"
    generation = _read_json(generation_file) if generation_file.is_file() else {}
    ids = set(_as_ids(generation.get("eos_token_id"))) | set(_as_ids(config.get("eos_token_id")))
    tokenizer_file = path / "tokenizer_config.json"
    tokenizer = _read_json(tokenizer_file) if tokenizer_file.is_file() else {}
    special = _special_tokens(path, tokenizer)
    template_file = path / "chat_template.jinja"
    template = (
        template_file.read_text(encoding="utf-8")
        if template_file.is_file()
        else str(tokenizer.get("chat_template"))
    )
    eos = tokenizer.get("eos_token")
    names = {eos["content"] if isinstance(eos, dict) else eos}
    names |= {name for name in _END_OF_TURN if name in template}
    return frozenset(ids | {special[name] for name in names if name in special})


def _special_tokens(path: Path, tokenizer_config: Json) -> dict[str, int]:
    """Return the tokens added to the vocabulary, by their text."""
    decoder = tokenizer_config.get("added_tokens_decoder") or {}
    special = {str(entry["content"]): int(token_id) for token_id, entry in decoder.items()}
    file = path / "tokenizer.json"
    if file.is_file():
        added = _read_json(file).get("added_tokens") or []
        special |= {str(entry["content"]): int(entry["id"]) for entry in added}
    return special


def _as_ids(value: object) -> Iterator[int]:
    if isinstance(value, int):
        yield value
    elif isinstance(value, list):
        yield from (int(entry) for entry in value)
