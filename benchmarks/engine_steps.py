"""Measures the bare engine core, no process and no HTTP: decode and prefill speed, and memory. Prints JSON.

Without `--model` it makes a random Llama, of 20.5M parameters if not told otherwise. `--quantization none int8` loads
both and runs them in turns, so that a machine whose speed drifts treats them alike. Judge figures of a quiet machine
only: the load average and the share of the cores that others used meanwhile are printed beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import tempfile
import time
from pathlib import Path

import psutil
import torch

from turnwise_server.engine.base import EngineInfo, GenerationRequest, SamplingParams
from turnwise_server.engine.core import EngineCore
from turnwise_server.engine.loading import load_engine
from turnwise_server.engine.options import EngineOptions

SHAPES = {
    "20M": {"vocab": 16384, "hidden": 384, "feed_forward": 1024, "layers": 8, "heads": 6, "kv_heads": 6},
    "0.5B": {"vocab": 151936, "hidden": 896, "feed_forward": 4864, "layers": 24, "heads": 14, "kv_heads": 2},
    "1B": {"vocab": 128256, "hidden": 2048, "feed_forward": 8192, "layers": 16, "heads": 32, "kv_heads": 8},
}
"""The shape the targets are stated for, and those of two families in use; embeddings are shared with the output."""


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", type=Path, help="checkpoint directory; default: a random Llama of the shape"
    )
    parser.add_argument("--shape", choices=SHAPES, default="20M", help="of the random Llama")
    parser.add_argument("--kv-heads", type=int, help="key heads of the random Llama, in place of its shape's")
    parser.add_argument("--quantization", choices=("none", "int8"), nargs="+", default=["none"])
    parser.add_argument("--rounds", type=int, default=1, help="of which the medians are reported")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--prompt-tokens", type=int, default=213)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--top-p", type=float, default=1.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model = arguments.model or save_random_llama(Path(scratch), arguments.shape, arguments.kv_heads)
        engines = {form: _load(model, form, arguments) for form in arguments.quantization}
    runs = []
    for streams in arguments.streams:
        rounds: dict[str, list[dict[str, float]]] = {form: [] for form in engines}
        for _ in range(arguments.rounds + 1):  # the first sets up kernels
            for form, (core, info, _) in engines.items():
                rounds[form].append(_run(core, info.vocab_size, streams, arguments))
        runs += [{"weights": engines[form][1].dtype} | _medians(rounds[form][1:]) for form in engines]
    info = next(iter(engines.values()))[1]
    report = {
        "model": str(arguments.model or f"random Llama, {arguments.shape}"),
        "device": info.device,
        "resident_after_loading_mib": {info.dtype: mib for _, info, mib in engines.values()},
        "threads": torch.get_num_threads(),
        "prompt_tokens": arguments.prompt_tokens,
        "new_tokens": arguments.new_tokens,
        "temperature": arguments.temperature,
        "top_p": arguments.top_p,
        "runs": runs,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "load_average_1m": round(os.getloadavg()[0], 2),
    }
    print(json.dumps(report, indent=2))


def _load(model: Path, form: str, arguments: argparse.Namespace) -> tuple[EngineCore, EngineInfo, int]:
    """Return an engine, and by how many MiB loading it made the process grow."""
    options = EngineOptions(
        str(model), arguments.device, arguments.dtype, arguments.threads, quantization=form
    )
    before = psutil.Process().memory_info().rss
    core, info = load_engine(options)
    return core, info, (psutil.Process().memory_info().rss - before) >> 20


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(run[name] for run in rounds) for name in rounds[0]}


def save_random_llama(directory: Path, shape_name: str, kv_heads: int | None) -> Path:
    """Save a Llama of one of the shapes with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = SHAPES[shape_name]
    config = LlamaConfig(
        vocab_size=shape["vocab"],
        hidden_size=shape["hidden"],
        intermediate_size=shape["feed_forward"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=kv_heads or shape["kv_heads"],
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    LlamaForCausalLM(config).save_pretrained(directory)
    torch.set_default_dtype(torch.float32)
    # The engine asks for a tokenizer to be there, and never reads its vocabulary.
    (directory / "tokenizer.json").write_text("{}")
    return directory


def _run(core: EngineCore, vocab_size: int, streams: int, arguments: argparse.Namespace) -> dict[str, float]:
    params = SamplingParams(
        max_tokens=arguments.new_tokens, temperature=arguments.temperature, top_p=arguments.top_p
    )
    for key in range(streams):
        prompt = tuple(random.choices(range(vocab_size), k=arguments.prompt_tokens))
        core.submit(key, GenerationRequest(str(key), prompt, params))
    began, used = time.perf_counter(), time.process_time()
    first: dict[int, float] = {}
    tokens = 0
    decode_steps, decode_s = 0, 0.0
    while core.has_work:
        step_began = time.perf_counter()
        update = core.step()
        now = time.perf_counter()
        for result in update.results:
            first.setdefault(result.key, now - began)
        tokens += len(update.results)
        if len(update.results) == streams and not update.started:
            decode_steps, decode_s = decode_steps + 1, decode_s + now - step_began
    elapsed = time.perf_counter() - began
    prefill_s = max(first.values())
    return {
        "streams": streams,
        "output_tokens_per_s": round(tokens / elapsed, 1),
        "decode_tokens_per_s": round(streams * decode_steps / decode_s, 1),
        "decode_step_ms": round(1e3 * decode_s / decode_steps, 2),
        "prefill_tokens_per_s": round(streams * arguments.prompt_tokens / prefill_s, 1),
        "ttft_p50_s": round(sorted(first.values())[streams // 2], 4),
        "cores_used": round((time.process_time() - used) / elapsed, 2),
    }


if __name__ == "__main__":
    main()
