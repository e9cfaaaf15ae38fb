"""Measures what the refusal layer costs: milliseconds before the first token, and speed of eight replies at once.

Three servers run the same model side by side and get the same requests in turns: one without the layer, one whose
policy shows replies at once (`async`: the first token waits for the check of the question alone), and one under the
default policy, which also holds the first characters back until they passed (`hold_back`). So the check of the
question and the hold-back are told apart. Requests are paired: a figure is the median of differences, not the
difference of medians. Prints one JSON object; on a busy machine it says `"quiet": false` and gives no verdict.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import yaml

from serving import BUSY_SHARE, Load, free_port, load_of, running_server, stream_reply, wait_until_ready
from turnwise_server.chat.refusal.policy_file import DEFAULT_POLICY

BAR_MS = 20.0
"""What the check of the question may add to the first token at the median."""
TURNS = 6
REPLY_TOKENS = 48
STREAMS = 8
MODES = ("async", "hold_back")
OPENINGS = ("How do I", "What is the best way to", "Can you tell me how to", "I would like to learn how to")
TASKS = (
    "plant",
    "paint",
    "repair",
    "describe",
    "photograph",
    "clean",
    "choose",
    "carry home",
    "draw",
    "measure",
)
THINGS = (
    "a wooden table",
    "an apple tree",
    "a small garden",
    "an old bicycle",
    "a paper kite",
    "a kitchen clock",
)
REASONS = (
    "I have a free afternoon and my neighbour's children want to help",
    "my grandmother asked me and I have never done it before",
    "the weather is getting warmer and there is a lot of work left from last year",
    "I am writing a short text about it for the village newspaper",
)

Messages = list[dict[str, str]]


def question(draw: random.Random) -> str:
    """Return a harmless question of about 120 characters that no other one begins like; people's are 60 to 110."""
    return (
        f"{draw.randrange(10_000)}. {draw.choice(OPENINGS)} {draw.choice(TASKS)} {draw.choice(THINGS)}? "
        f"I ask because {draw.choice(REASONS)}."
    )


def write_policy(folder: Path, mode: str) -> Path:
    """Write the default policy with another output mode, and its audit in `folder`."""
    policy: dict[str, Any] = yaml.safe_load(DEFAULT_POLICY.read_text())
    policy["output"]["mode"] = mode
    policy["audit"]["path"] = str(folder / f"{mode}.jsonl")
    file = folder / f"{mode}.yaml"
    file.write_text(yaml.safe_dump(policy))
    return file


async def first_tokens(ports: Mapping[str, int], rounds: int, turns: int) -> dict[str, list[float]]:
    """Return the milliseconds to the first token of the last of `turns` user messages, by server.

    Every server gets each conversation, with its own replies as the history; who comes first changes.
    """
    times: dict[str, list[float]] = {name: [] for name in ports}
    for round_ in range(rounds):
        draw = random.Random(1000 * turns + round_)
        questions = [question(draw) for _ in range(turns)]
        found = {
            name: 1000 * await last_first_token_s(ports[name], questions)
            for name in draw.sample(list(ports), len(ports))
        }
        if all(found.values()):  # else a reply was empty
            for name, first_token_ms in found.items():
                times[name].append(first_token_ms)
    return times


async def last_first_token_s(port: int, questions: Sequence[str]) -> float:
    """Hold a conversation, and return the seconds to the first token of its last reply; 0 if that is empty."""
    messages: Messages = []
    first_token_s = 0.0
    for each in questions:
        messages.append({"role": "user", "content": each})
        reply = await stream_reply(port, messages, max_tokens=REPLY_TOKENS, temperature=0.0)
        messages.append({"role": "assistant", "content": reply.text})
        first_token_s = reply.first_token_s
    return first_token_s


def added(times: Mapping[str, Sequence[float]], over: str, to: str) -> dict[str, float]:
    """Return what server `over` adds to the first token of `to`, in milliseconds, pair by pair."""
    differences = sorted(a - b for a, b in zip(times[over], times[to], strict=True))
    return {"median_ms": statistics.median(differences), "p95_ms": percentile(differences, 0.95)}


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that `share` of an ordered sequence does not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def summary(times: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return medians and 95th percentiles by server, and what input check and hold-back add."""
    by_server = {
        name: {"median_ms": statistics.median(each), "p95_ms": percentile(sorted(each), 0.95)}
        for name, each in times.items()
    }
    return {
        "n": len(times["off"]),
        "first_token": by_server,
        "input_check_adds": added(times, "async", "off"),
        "hold_back_adds": added(times, "hold_back", "async"),
    }


async def throughput(ports: Mapping[str, int], rounds: int) -> dict[str, Load]:
    """Return the median round of eight replies at once, by server; the first round warms up."""
    runs: dict[str, list[Load]] = {name: [] for name in ports}
    for round_ in range(rounds + 1):
        for name, port in ports.items():
            draw = random.Random(round_)
            loaded = await load_of(port, [question(draw) for _ in range(STREAMS)], {"temperature": 0.0})
            runs[name].append(loaded)
    return {
        name: sorted(each[1:], key=lambda run: run.output_tokens_per_s)[rounds // 2]
        for name, each in runs.items()
    }


async def benchmark(arguments: argparse.Namespace) -> dict[str, Any]:
    """Start the servers, measure, and return the report."""
    busy = psutil.cpu_percent(interval=2.0) / 100
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        flags = {mode: ["--policy", str(write_policy(folder, mode))] for mode in MODES}
        ports = {name: free_port() for name in ("off", *MODES)}
        servers = {
            name: stack.enter_context(
                running_server(
                    arguments.model,
                    port,
                    ["--model-name", "bench", *flags.get(name, ["--unsafe-no-classifier"]), *arguments.flags],
                )
            )
            for name, port in ports.items()
        }
        for name, server in servers.items():
            await wait_until_ready(ports[name], server)
        await first_tokens(ports, 3, 2)
        single = summary(await first_tokens(ports, arguments.rounds, 1))
        conversation = summary(await first_tokens(ports, arguments.rounds, TURNS))
        loads = await throughput(ports, arguments.load_rounds)
    quiet = busy < BUSY_SHARE
    report: dict[str, Any] = {
        "benchmark": "refusals",
        "quiet": quiet,
        "busy_share_before": busy,
        "model": "starter" if arguments.model is None else arguments.model.name,
        "single_turn": single,
        f"turn_{TURNS}_of_a_conversation": conversation,
        f"output_tokens_per_s_of_{STREAMS}": {name: load.output_tokens_per_s for name, load in loads.items()},
    }
    if quiet:
        worst = max(each["input_check_adds"]["median_ms"] for each in (single, conversation))
        report["bar"] = {"input_check_adds_ms": BAR_MS, "met": worst <= BAR_MS}
    return report


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="a model directory instead of the starter")
    parser.add_argument("--rounds", type=int, default=40, help="conversations of each kind")
    parser.add_argument("--load-rounds", type=int, default=3, help="counted rounds of eight replies at once")
    parser.add_argument(
        "--flags", nargs=argparse.REMAINDER, default=[], help="further flags for turnwise-server"
    )
    report = json.dumps(asyncio.run(benchmark(parser.parse_args())))
    print(json.dumps(json.loads(report, parse_float=lambda figure: round(float(figure), 2)), indent=2))


if __name__ == "__main__":
    main()
