"""A random model that must call tools calls them rightly: real engine, real grammar, every family of templates."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import jsonschema
import pytest

from support.tiny_checkpoints import write_tiny_checkpoint
from support.tool_templates import HERMES, LLAMA, MISTRAL, MISTRAL_TOKENS, tool_tokenizer
from turnwise_server.chat.checkpoint_files import GenerationDefaults
from turnwise_server.chat.messages import ClientMessage
from turnwise_server.chat.model import ChatModel
from turnwise_server.chat.tools import Tool, ToolUse
from turnwise_server.chat.turn import ChoiceFinished, TextDelta, ToolCallDelta, TurnEvent, TurnRequest
from turnwise_server.engine.in_process_engine import InProcessEngine

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Oslo", "Rome"]},
        "days": {"type": "integer", "minimum": 0, "maximum": 9},
        "note": {"type": "string", "maxLength": 6},
    },
    "required": ["city", "days", "note"],
    "additionalProperties": False,
}
TOOLS = (Tool("get_weather", "", SCHEMA), Tool("get_time"))
TOKENIZERS = {
    "hermes": tool_tokenizer(HERMES),
    "llama": tool_tokenizer(LLAMA),
    "mistral": tool_tokenizer(MISTRAL, control_tokens=MISTRAL_TOKENS),
}


@pytest.fixture(params=TOKENIZERS)
async def model(request: pytest.FixtureRequest, tmp_path: Any) -> AsyncIterator[ChatModel]:
    tokenizer = TOKENIZERS[request.param]
    checkpoint = write_tiny_checkpoint(tmp_path / request.param, tokenizer=tokenizer, context_length=1024)
    engine = InProcessEngine(checkpoint, device="cpu", dtype="float32", threads=1, kv_memory_mb=64)
    info = await engine.start()
    yield ChatModel(tokenizer, engine, info, defaults=GenerationDefaults(), source=request.param)
    await engine.close()


async def events(model: ChatModel, use: ToolUse, **options: Any) -> list[TurnEvent]:
    request = TurnRequest(
        "r", (ClientMessage("user", "hello"),), tools=use, **({"max_tokens": 160} | options)
    )
    prepared = await asyncio.to_thread(model.prepare, request)
    return [event async for event in model.start(prepared)]


def calls(happened: list[TurnEvent]) -> list[list[str]]:
    made: list[list[str]] = []
    for event in happened:
        if isinstance(event, ToolCallDelta):
            if event.name is not None:
                made.append([event.name, ""])
            made[event.call][1] += event.arguments
    return made


def content(happened: list[TurnEvent]) -> str:
    return "".join(event.text for event in happened if isinstance(event, TextDelta))


async def test_forced_calls_are_valid_unless_cut_by_length(model: ChatModel) -> None:
    reasons = []
    for seed in range(6):
        happened = await events(model, ToolUse(TOOLS, "required"), seed=seed, max_tokens=40 + 24 * seed)
        last = happened[-1]
        assert isinstance(last, ChoiceFinished)
        reasons.append(last.finish_reason)
        made = calls(happened)
        assert made or last.finish_reason == "length"
        assert not content(happened) or not made
        for name, arguments in made[:-1] if last.finish_reason == "length" else made:
            if name == "get_weather":
                jsonschema.validate(json.loads(arguments), SCHEMA)
            else:
                assert json.loads(arguments) == {}
    assert set(reasons) <= {"tool_calls", "length"}
    assert "tool_calls" in reasons


async def test_a_named_tool_is_called_once(model: ChatModel) -> None:
    use = ToolUse(TOOLS, "required", frozenset({"get_weather"}), is_parallel=False)
    happened = await events(model, use, seed=5)
    assert [name for name, _ in calls(happened)] == ["get_weather"]
    assert isinstance(happened[-1], ChoiceFinished)
    assert happened[-1].finish_reason == "tool_calls"


async def test_forced_arguments_come_piece_by_piece_with_their_logprobs(model: ChatModel) -> None:
    happened = await events(model, ToolUse(TOOLS[:1], "required", is_parallel=False), seed=1, top_logprobs=0)
    deltas = [event for event in happened if isinstance(event, ToolCallDelta)]
    assert len(deltas) > 10
    assert all(delta.id is None for delta in deltas[1:])
    shown = b"".join(bytes(token.bytes) for event in deltas for token in event.logprobs).decode()
    ((name, arguments),) = calls(happened)
    assert name in shown
    assert arguments in shown


async def test_a_strict_tool_may_be_left_alone(model: ChatModel) -> None:
    use = ToolUse((Tool("f", "", SCHEMA, is_strict=True),))
    happened = await events(model, use, seed=3, max_tokens=30)
    assert content(happened) or calls(happened)
