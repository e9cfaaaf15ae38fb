"""Reads from a model directory what the chat layer needs: the tokenizer and the generation defaults."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, get_tokenizer_config
from transformers.utils import cached_file

from turnwise_server.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class GenerationDefaults:
    """Sampling that the checkpoint recommends; what it does not name is neutral."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0


def load_tokenizer(model: str) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a model directory or hub name.

    Raises:
        CheckpointError: it is missing, damaged, or has no tokenizer.json.
    """
    try:
        kind = PreTrainedTokenizerFast if _is_generic(model) else AutoTokenizer
        tokenizer = kind.from_pretrained(model, trust_remote_code=False)
    except Exception as error:
        raise CheckpointError(
            f"cannot load the tokenizer of {model}: check its tokenizer.json and tokenizer_config.json ({error})"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise CheckpointError(f"{model} has no tokenizer.json: convert its tokenizer to the fast format")
    return tokenizer


def _is_generic(model: str) -> bool:
    """Return whether tokenizer.json is all there is to a tokenizer, by what its checkpoint says.

    `AutoTokenizer` comes to the same class, but takes a second and 80 MB to import the model's configuration before.
    """
    declared = get_tokenizer_config(model)
    config = cached_file(model, "config.json", _raise_exceptions_for_missing_entries=False)
    if config is None or "auto_map" in declared or declared.get("tokenizer_class") != "TokenizersBackend":
        return False
    model_type = json.loads(Path(config).read_text(encoding="utf-8")).get("model_type")
    return TOKENIZER_MAPPING_NAMES.get(model_type) is None


def load_generation_defaults(model: str) -> GenerationDefaults:
    """Read generation_config.json; a checkpoint without one recommends nothing.

    Raises:
        CheckpointError: the file is not JSON, or holds a value of the wrong kind.
    """
    path = cached_file(model, "generation_config.json", _raise_exceptions_for_missing_entries=False)
    if path is None:
        return GenerationDefaults()
    try:
        content: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        return GenerationDefaults(
            temperature=float(_or(content.get("temperature"), 1.0)),
            top_p=float(_or(content.get("top_p"), 1.0)),
            top_k=int(_or(content.get("top_k"), 0)),
            repetition_penalty=float(_or(content.get("repetition_penalty"), 1.0)),
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: mend or remove it ({error})") from error


def _or(value: Any, default: float) -> Any:
    return default if value is None else value
