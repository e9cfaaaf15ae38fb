"""Reads the JSON script that `turnwise-server --engine fake` plays. It knows tokenizers, not HTTP."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tokenizers import Tokenizer

from turnwise_server.engine.base import GenerationRequest
from turnwise_server.engine.fake_engine import FakeEngine, Script, in_order
from turnwise_server.errors import CheckpointError, ConfigurationError


class FakeScript(BaseModel):
    """What the fake engine says and how fast. Replies are handed out in order, then again from the first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    replies: Annotated[list[str], Field(min_length=1)] = ["Hello! I am a scripted reply of the fake engine."]
    answers: dict[Annotated[str, Field(min_length=1)], str] = {}
    """Replies to prompts that hold a text, by that text: the one that stands last in the prompt counts."""
    token_delay_ms: Annotated[float, Field(ge=0)] = 0.0
    prefill_delay_ms: Annotated[float, Field(ge=0)] = 0.0

    @classmethod
    def read(cls, path: Path | None) -> FakeScript:
        """Read a script file; None gives the default script.

        Raises:
            ConfigurationError: the file cannot be read or is not a script.
        """
        if path is None:
            return cls()
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise ConfigurationError(f"cannot read the script {str(path)!r}: {error.strerror}") from error
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in problem["loc"]) or "the whole file"
            raise ConfigurationError(
                f"the script {str(path)!r} is not valid at {place}: {problem['msg']}; it must look like "
                '{"replies": ["Hello!"], "token_delay_ms": 20}'
            ) from error


def load_fake_engine(
    model: Path,
    script: FakeScript,
    *,
    context_length: int | None = None,
    max_batch: int = 32,
    max_queued_requests: int = 64,
) -> FakeEngine:
    """Make an engine that says the script's replies in the tokens of the model directory; needs no weights.

    Raises:
        CheckpointError: the directory has no readable tokenizer.json or config.json.
    """
    tokenizer_file = model / "tokenizer.json"
    if not tokenizer_file.is_file():
        raise CheckpointError(
            f"{str(tokenizer_file)!r} is missing: the fake engine needs a model's tokenizer"
        )
    try:
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
    except Exception as error:
        # The library raises bare exceptions only.
        raise CheckpointError(f"cannot read {str(tokenizer_file)!r}: {error}") from error
    config = _read_object(model / "config.json")
    limit = config.get("max_position_embeddings")
    return FakeEngine(
        _say(script, tokenizer),
        vocab_size=tokenizer.get_vocab_size(),
        stop_token_ids=_stop_token_ids(model, config),
        context_length=context_length or (limit if isinstance(limit, int) else 4096),
        token_delay_s=script.token_delay_ms / 1000,
        prefill_delay_s=script.prefill_delay_ms / 1000,
        max_batch=max_batch,
        max_queued_requests=max_queued_requests,
    )


def _say(script: FakeScript, tokenizer: Tokenizer) -> Script:
    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    in_turn = in_order([encode(reply) for reply in script.replies])
    answers = {text: encode(reply) for text, reply in script.answers.items()}

    def say(request: GenerationRequest) -> Sequence[int]:
        prompt = tokenizer.decode(request.prompt_ids, skip_special_tokens=False) if answers else ""
        said = [(prompt.rfind(text) + len(text), len(text), text) for text in answers if text in prompt]
        return answers[max(said)[2]] if said else in_turn(request)

    return say


def _stop_token_ids(model: Path, config: dict[str, object]) -> frozenset[int]:
    generation_file = model / "generation_config.json"
    generation = _read_object(generation_file) if generation_file.is_file() else {}
    eos = generation.get("eos_token_id", config.get("eos_token_id"))
    ids = frozenset(item for item in (eos if isinstance(eos, list) else [eos]) if isinstance(item, int))
    if not ids:
        raise CheckpointError(f"{str(generation_file)!r} names no eos_token_id: a reply could never end")
    return ids


def _read_object(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"cannot read {str(path)!r}: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{str(path)!r} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{str(path)!r} must hold a JSON object")
    return content
