"""Measures what a grammar costs: the check of a schema, its compilation, and each token beside a free one. Prints JSON.

Rounds of held and of free sequences take turns, so that a busy machine slows both; the median of the rounds counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path

from turnwise_server.chat.structured import json_schema_grammar
from turnwise_server.engine.base import GenerationRequest, SamplingParams
from turnwise_server.engine.core import EngineCore
from turnwise_server.engine.grammar import GrammarCompiler
from turnwise_server.engine.loading import load_engine
from turnwise_server.engine.options import EngineOptions

STARTER = Path(__file__).parents[1] / "models" / "starter"

SCHEMAS: dict[str, dict[str, object]] = {
    "three fields": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "kind": {"enum": ["a", "b"]}},
        "required": ["name", "age", "kind"],
        "additionalProperties": False,
    },
    "endless list of objects": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"name": {"type": "string", "maxLength": 40}, "age": {"type": "integer"}},
            "required": ["name", "age"],
        },
        "minItems": 100_000,
    },
    "1,000 optional properties": {"type": "object", "properties": {f"p{i}": {} for i in range(1000)}},
    "enum of 2,000": {"enum": [f"value number {i}" for i in range(2000)]},
}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", type=Path, default=STARTER, help="checkpoint directory; default: the starter"
    )
    parser.add_argument("--threads", type=int)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--new-tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    core, info = load_engine(EngineOptions(str(arguments.model), "cpu", "auto", arguments.threads))
    began = time.perf_counter()
    compiler = GrammarCompiler.load(
        arguments.model, vocab_size=info.vocab_size, stop_token_ids=info.stop_token_ids
    )
    load_s = time.perf_counter() - began
    assert compiler is not None
    report = {
        "model": str(arguments.model),
        "vocabulary": info.vocab_size,
        "load_tokenizer_ms": round(1000 * load_s, 1),
        "schemas": {name: measure_schema(schema, compiler) for name, schema in SCHEMAS.items()},
        "runs": [
            measure_tokens(core, info.stop_token_ids, streams, arguments.new_tokens, arguments.rounds)
            for streams in arguments.streams
        ],
        "load_average_1m": round(os.getloadavg()[0], 2),
    }
    print(json.dumps(report, indent=2))


def measure_schema(schema: dict[str, object], compiler: GrammarCompiler) -> dict[str, float]:
    """Return how long the API's check takes, and then the engine until the first mask is there, in milliseconds."""
    began = time.perf_counter()
    grammar = json_schema_grammar(schema)
    checked = time.perf_counter()
    compiler.cursor(grammar, ()).look()
    return {
        "check_ms": round(1000 * (checked - began), 2),
        "first_mask_ms": round(1000 * (time.perf_counter() - checked), 2),
    }


def measure_tokens(
    core: EngineCore, stop_token_ids: frozenset[int], streams: int, new_tokens: int, rounds: int
) -> dict[str, float]:
    """Return milliseconds a step of `streams` sequences, held and free."""
    grammar = json_schema_grammar(SCHEMAS["endless list of objects"])
    held = SamplingParams(new_tokens, seed=1, stop_token_ids=stop_token_ids, grammar=grammar)
    free = SamplingParams(new_tokens, seed=1)
    times: dict[str, list[float]] = {"held": [], "free": []}
    for turn in range(rounds + 1):
        for name, sampling in (("held", held), ("free", free)):
            seconds = _step_seconds(core, sampling, streams)
            if turn:
                times[name].append(seconds)
    medians = {f"{name}_ms": round(1000 * statistics.median(values), 3) for name, values in times.items()}
    return {"streams": streams, **medians}


def _step_seconds(core: EngineCore, sampling: SamplingParams, streams: int) -> float:
    for key in range(streams):
        core.submit(key, GenerationRequest(str(key), tuple(range(40, 60 + key)), sampling))
    core.step()
    began, steps = time.perf_counter(), 0
    while core.has_work:
        core.step()
        steps += 1
    return (time.perf_counter() - began) / steps


if __name__ == "__main__":
    main()
