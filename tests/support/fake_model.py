"""A model directory without weights: all that the fake engine and the chat layer need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.fake_server import END_OF_TURN
from support.tiny_tokenizers import CHATML, tiny_tokenizer


def write_fake_model(directory: Path, *, context_length: int = 512, template: str = CHATML) -> Path:
    """Write the tiny tokenizer with a template, and the two configurations."""
    tiny_tokenizer(template).save_pretrained(directory)
    config: dict[str, Any] = {"model_type": "llama", "max_position_embeddings": context_length}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [END_OF_TURN]}))
    return directory


def write_script(
    file: Path,
    *replies: str,
    answers: dict[str, str] | None = None,
    token_delay_ms: float = 0,
    prefill_delay_ms: float = 0,
) -> Path:
    """Write a script for the fake engine."""
    script = {
        "replies": replies,
        "answers": answers or {},
        "token_delay_ms": token_delay_ms,
        "prefill_delay_ms": prefill_delay_ms,
    }
    file.write_text(json.dumps(script))
    return file
