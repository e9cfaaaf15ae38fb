"""Measures the bare engine core, no process and no HTTP: decode and prefill speed, and memory. Prints JSON.

Without `--model` it makes a random Llama of 20.5M parameters. Judge figures of a quiet machine only: the load average
and the share of the cores that others used meanwhile are printed beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import tempfile
import time
from pathlib import Path

import torch

from turnwise_server.engine.base import GenerationRequest, SamplingParams
from turnwise_server.engine.core import EngineCore
from turnwise_server.engine.loading import load_engine
from turnwise_server.engine.options import EngineOptions


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", type=Path, help="checkpoint directory; default: a random Llama of 20.5M parameters"
    )
    parser.add_argument("--kv-heads", type=int, default=6, help="key heads of the random model, of 6")
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
        model = arguments.model or save_random_llama(Path(scratch), arguments.kv_heads)
        options = EngineOptions(str(model), arguments.device, arguments.dtype, arguments.threads)
        core, info = load_engine(options)
        runs = [measure(core, info.vocab_size, streams, arguments) for streams in arguments.streams]
    report = {
        "model": str(arguments.model or f"random Llama, 20.5M, 6/{arguments.kv_heads} heads"),
        "device": info.device,
        "dtype": info.dtype,
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


def measure(
    core: EngineCore, vocab_size: int, streams: int, arguments: argparse.Namespace
) -> dict[str, float]:
    """Run `streams` sequences to their end twice and report the second run: the first sets up kernels."""
    result: dict[str, float] = {}
    for _ in range(2):
        result = _run(core, vocab_size, streams, arguments)
    return result


def save_random_llama(directory: Path, kv_heads: int) -> Path:
    """Save the 20.5M-parameter shape the targets are stated for: hidden 384, 8 layers, 6 heads, 16k vocabulary."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=16384,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=6,
        num_key_value_heads=kv_heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(directory)
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
