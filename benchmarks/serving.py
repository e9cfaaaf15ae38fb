"""Measures a running server as clients see it: output tokens a second, time to first token, resident memory.

Starts `turnwise-server` on a model of the 20.5M-parameter reference shape (random weights: speed does not depend on
them), or on any directory given with `--model`, sends the reference traffic (213 prompt tokens, 128 new tokens, N
streams at once) and prints one JSON object. On a machine that is busy with other things the figures mean nothing; the
report then says `"quiet": false` and gives no verdict.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PROMPT_TOKENS = 213
NEW_TOKENS = 128
STREAMS = (1, 8, 32)
BARS = {1: 120.0, 8: 500.0, 32: 850.0}
"""Output tokens a second that the reference shape must reach on two quiet cores."""
MEMORY_BAR_MB = 1536
BUSY_SHARE = 0.15


@dataclass(frozen=True, slots=True)
class Load:
    """One measurement: `streams` replies at once."""

    streams: int
    output_tokens_per_s: float
    ttft_p50_s: float
    ttft_max_s: float
    output_tokens: int
    wall_s: float


@dataclass(frozen=True, slots=True)
class Reply:
    """What one client saw."""

    first_token_s: float
    prompt_tokens: int
    completion_tokens: int
    text: str


def build_reference_model(directory: Path) -> None:
    """Write a Llama of hidden 384, 8 layers, 6/6 heads and a 16k vocabulary, random weights, bf16: 20.5M parameters."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    size = 16_384
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    pairs = [(a, b) for a in alphabet for b in alphabet][: size - len(alphabet) - len(control)]
    vocab = {token: index for index, token in enumerate([*control, *alphabet, *(a + b for a, b in pairs)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=control[0], additional_special_tokens=control[1:]
    )
    fast.chat_template = (
        "{% for message in messages %}"
        "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=[0, 2],
        pad_token_id=0,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(directory)
    fast.save_pretrained(directory)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_server(model: Path | None, port: int, flags: list[str]) -> Iterator[psutil.Process]:
    command = [str(Path(sys.executable).with_name("turnwise-server")), "--port", str(port), *flags]
    if model is not None:
        command += ["--model", str(model)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


async def wait_until_ready(port: int, server: psutil.Process, limit_s: float = 120) -> float:
    """Return the seconds until /ready answered 200."""
    start = time.monotonic()
    while time.monotonic() - start < limit_s:
        if not server.is_running() or server.status() == psutil.STATUS_ZOMBIE:
            raise SystemExit("the server ended before it was ready")
        try:
            status, _ = await exchange(
                port, b"GET /ready HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
            )
        except OSError:
            status = 0
        if status == 200:
            return time.monotonic() - start
        await asyncio.sleep(0.05)
    raise SystemExit("the server was not ready in time")


async def exchange(port: int, message: bytes) -> tuple[int, bytes]:
    async with AsyncExitStack() as stack:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        stack.callback(writer.close)
        writer.write(message)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        return (int(head.split()[1]) if head else 0), body


async def one_reply(port: int, prompt: str, sampling: dict[str, float]) -> Reply:
    return await stream_reply(port, [{"role": "user", "content": prompt}], max_tokens=NEW_TOKENS, **sampling)


async def stream_reply(port: int, messages: list[dict[str, str]], **parameters: float) -> Reply:
    """Stream one reply over a plain socket: the client must cost next to nothing on the cores under test."""
    options = {"stream": True, "stream_options": {"include_usage": True}, **parameters}
    body = json.dumps({"model": "bench", "messages": messages, **options}).encode()
    start = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        b"connection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    )
    first_token_s, usage = 0.0, None
    lines = []
    async for line in reader:
        if not line.startswith(b"data: {"):
            continue
        if b'"delta":{"content":"' in line and b'"role"' not in line:
            first_token_s = first_token_s or time.monotonic() - start
            lines.append(line)
        if b'"usage":{' in line:
            usage = json.loads(line[6:])["usage"]
    writer.close()
    if usage is None:
        raise SystemExit("a stream ended without usage: the server failed under load")
    text = "".join(json.loads(line[6:])["choices"][0]["delta"]["content"] for line in lines)
    return Reply(first_token_s, usage["prompt_tokens"], usage["completion_tokens"], text)


def prompt_of(index: int, characters: int) -> str:
    """Text that differs from its first word on, so that no prompt profits from another's cached prefix."""
    words = f"{index} " + "".join(
        chr(97 + (index * 7 + place * place * 5 + place) % 26) for place in range(characters)
    )
    return words[:characters]


async def measure(port: int, streams: int, characters: int, round_: int, sampling: dict[str, float]) -> Load:
    prompts = [prompt_of(1000 * round_ + index, characters) for index in range(streams)]
    return await load_of(port, prompts, sampling)


async def load_of(port: int, prompts: Sequence[str], sampling: dict[str, float]) -> Load:
    """Measure the replies to `prompts`, all of them at once."""
    start = time.monotonic()
    replies = await asyncio.gather(*(one_reply(port, prompt, sampling) for prompt in prompts))
    wall_s = time.monotonic() - start
    tokens = sum(reply.completion_tokens for reply in replies)
    firsts = [reply.first_token_s for reply in replies]
    return Load(len(prompts), tokens / wall_s, statistics.median(firsts), max(firsts), tokens, wall_s)


async def calibrated_characters(port: int) -> int:
    """Find how many characters make a prompt of `PROMPT_TOKENS` tokens."""
    characters = PROMPT_TOKENS
    for attempt in range(4):
        reply = await one_reply(port, prompt_of(90_000 + attempt, characters), {})
        if abs(reply.prompt_tokens - PROMPT_TOKENS) <= 5:
            break
        characters = max(8, round(characters * PROMPT_TOKENS / reply.prompt_tokens))
    return characters


def memory_mb(server: psutil.Process) -> dict[str, float]:
    """Resident and proportional memory of the API process and its engine, in MiB."""
    processes = [server, *server.children(recursive=True)]
    infos = [process.memory_full_info() for process in processes]
    return {
        "rss_sum": round(sum(info.rss for info in infos) / 2**20, 1),
        "pss_sum": round(sum(info.pss for info in infos) / 2**20, 1),
    }


async def benchmark(arguments: argparse.Namespace) -> dict[str, Any]:
    busy = psutil.cpu_percent(interval=2.0) / 100
    sampling = {"temperature": arguments.temperature}
    with ExitStack() as stack:
        model: Path | None = arguments.model
        if model is None:
            model = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "reference"
            build_reference_model(model)
        port = free_port()
        server = stack.enter_context(running_server(model, port, ["--model-name", "bench", *arguments.flags]))
        ready_s = await wait_until_ready(port, server)
        characters = await calibrated_characters(port)
        loads = []
        for streams in arguments.streams:
            runs = [
                await measure(port, streams, characters, round_, sampling)
                for round_ in range(arguments.rounds + 1)
            ]
            loads.append(sorted(runs[1:], key=lambda run: run.output_tokens_per_s)[len(runs[1:]) // 2])
        memory = memory_mb(server)
    quiet = busy < BUSY_SHARE
    report: dict[str, Any] = {
        "benchmark": "serving",
        "machine": {"processor": platform.processor() or platform.machine(), "cores": psutil.cpu_count()},
        "quiet": quiet,
        "busy_share_before": round(busy, 3),
        "model": "reference 20.5M" if arguments.model is None else arguments.model.name,
        "sampling": sampling,
        "start_to_ready_s": round(ready_s, 2),
        "loads": [{key: round(value, 3) for key, value in asdict(load).items()} for load in loads],
        "memory_mib": memory,
    }
    if quiet and arguments.model is None:
        report["bars"] = verdict(loads, memory["rss_sum"])
    return report


def verdict(loads: list[Load], rss_mib: float) -> dict[str, Any]:
    """Compare with the bars; an unmeasured one is absent."""
    speeds = {
        f"{load.streams} streams": {
            "bar": BARS[load.streams],
            "met": load.output_tokens_per_s >= BARS[load.streams],
        }
        for load in loads
        if load.streams in BARS
    }
    return speeds | {"memory": {"bar": MEMORY_BAR_MB, "met": rss_mib < MEMORY_BAR_MB}}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="a model directory instead of the reference shape")
    parser.add_argument(
        "--streams", type=int, nargs="+", default=list(STREAMS), help="how many replies at once"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="counted rounds; the median by speed is reported"
    )
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument(
        "--flags", nargs=argparse.REMAINDER, default=[], help="further flags for turnwise-server"
    )
    print(json.dumps(asyncio.run(benchmark(parser.parse_args())), indent=2))


if __name__ == "__main__":
    main()
