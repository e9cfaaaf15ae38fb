"""The fake engine keeps the promises of `Engine`, and its script file is checked."""

import asyncio
import json
from pathlib import Path

import pytest

from support.fake_model import write_fake_model, write_script
from support.fake_server import END_OF_TURN, encode
from turnwise_server.engine.base import Engine, FinishReason, GenerationRequest, SamplingParams, TokenEvent
from turnwise_server.engine.fake_engine import FakeEngine
from turnwise_server.engine.fake_script import FakeScript, load_fake_engine
from turnwise_server.errors import CheckpointError, ConfigurationError, EngineDeadError, QueueFullError

STOP = 9


def request(max_tokens: int = 100, **options: int) -> GenerationRequest:
    return GenerationRequest("r", (1, 2, 3), SamplingParams(max_tokens, **options))  # type: ignore[arg-type]


async def started(*replies: list[int], **options: float) -> FakeEngine:
    engine = FakeEngine(
        list(replies) or [[1, 2]],
        vocab_size=10,
        stop_token_ids=frozenset({STOP}),
        **options,  # type: ignore[arg-type]
    )
    engine_as_promised: Engine = engine
    await engine_as_promised.start()
    return engine


async def read(engine: FakeEngine, asked: GenerationRequest) -> list[TokenEvent]:
    return [event async for event in engine.submit(asked)]


async def test_replies_come_in_order_and_end_with_the_stop_token() -> None:
    engine = await started([1, 2], [3])
    replies = [[event.token_id for event in await read(engine, request())] for _ in range(3)]
    assert replies == [[1, 2, STOP], [3, STOP], [1, 2, STOP]]
    await asyncio.sleep(0.01)
    assert (engine.finished, engine.running) == (3, 0)


async def test_a_reply_may_depend_on_the_request() -> None:
    engine = FakeEngine(lambda asked: asked.prompt_ids[::-1], vocab_size=10, stop_token_ids=frozenset({STOP}))
    await engine.start()
    assert [event.token_id for event in await read(engine, request())] == [3, 2, 1, STOP]


@pytest.mark.parametrize("max_tokens", [1, 2])
async def test_max_tokens_ends_a_reply_with_length(max_tokens: int) -> None:
    events = await read(await started([1, 2]), request(max_tokens))
    assert [event.finish_reason for event in events] == [None] * (max_tokens - 1) + [FinishReason.LENGTH]


async def test_the_context_ends_a_reply_with_length() -> None:
    events = await read(await started([1] * 50, context_length=8), request())
    assert len(events) == 5
    assert events[-1].finish_reason is FinishReason.LENGTH


async def test_a_scripted_stop_token_ends_a_reply() -> None:
    events = await read(await started([1, STOP, 2]), request())
    assert [event.token_id for event in events] == [1, STOP]
    assert events[-1].finish_reason is FinishReason.STOP


async def test_logprobs_are_there_when_asked_for_and_the_same_each_time() -> None:
    engine = await started([1, 2])
    assert (await read(engine, request()))[0].logprobs is None
    first, again = [await read(engine, request(top_logprobs=2)) for _ in range(2)]
    assert first == again
    assert first[0].logprobs is not None
    assert first[0].logprobs.top[0] == (1, first[0].logprobs.logprob)
    assert len(first[0].logprobs.top) == 2


async def test_slots_and_queue_are_bounded() -> None:
    engine = await started([1] * 50, token_delay_s=0.01, max_batch=2, max_queued_requests=1)
    generations = [engine.submit(request()) for _ in range(3)]
    await asyncio.sleep(0.05)
    assert (engine.running, engine.waiting) == (2, 1)
    with pytest.raises(QueueFullError):
        engine.submit(request())
    generations[0].cancel()
    await asyncio.sleep(0.05)
    assert (engine.running, engine.waiting, engine.cancelled) == (2, 0, 1)
    await engine.close()


async def test_cancelling_ends_the_iteration_and_is_harmless_twice() -> None:
    engine = await started([1] * 50, token_delay_s=0.01)
    generation = engine.submit(request())
    reader = asyncio.create_task(anext(generation))
    await reader
    waiting = asyncio.create_task(anext(generation))
    await asyncio.sleep(0)
    generation.cancel()
    generation.cancel()
    with pytest.raises(StopAsyncIteration):
        await waiting
    await asyncio.sleep(0)
    assert (engine.running, engine.cancelled) == (0, 1)


async def test_death_ends_what_runs_and_refuses_what_comes() -> None:
    engine = await started([1] * 50, token_delay_s=0.01, max_batch=1)
    generations = [engine.submit(request()) for _ in range(2)]
    await asyncio.sleep(0.03)
    engine.die()
    for generation in generations:
        with pytest.raises(EngineDeadError):
            async for _ in generation:
                pass
    with pytest.raises(EngineDeadError):
        engine.submit(request())
    await asyncio.sleep(0.01)
    assert not engine.stats().is_alive
    assert (engine.running, engine.waiting) == (0, 0)


async def test_a_stalled_engine_says_how_long(tmp_path: Path) -> None:
    engine = await started([1])
    engine.stall(100)
    assert engine.stats().seconds_since_step >= 100


async def test_a_script_file_speaks_in_the_models_tokens(tmp_path: Path) -> None:
    model = write_fake_model(tmp_path, context_length=77)
    script = FakeScript.read(write_script(tmp_path / "script.json", "Hi!", token_delay_ms=1))
    engine = load_fake_engine(model, script)
    info = await engine.start()
    assert (info.context_length, info.stop_token_ids) == (77, frozenset({END_OF_TURN}))
    assert [event.token_id for event in await read(engine, request())] == [*encode("Hi!"), END_OF_TURN]


async def test_answers_go_by_what_stands_last_in_the_prompt(tmp_path: Path) -> None:
    answers = {"weather": "Rain.", "weather tomorrow": "Sun.", "thanks": "Welcome!"}
    script = FakeScript.read(write_script(tmp_path / "script.json", "Hi!", answers=answers))
    engine = load_fake_engine(write_fake_model(tmp_path), script)
    await engine.start()
    said = {
        "the weather": "Rain.",
        "the weather tomorrow": "Sun.",
        "the weather tomorrow? thanks": "Welcome!",
        "thanks, and the weather": "Rain.",
        "hello": "Hi!",
    }
    for prompt, reply in said.items():
        asked = GenerationRequest("r", tuple(encode(prompt)), SamplingParams(100))
        events = await read(engine, asked)
        assert [event.token_id for event in events] == [*encode(reply), END_OF_TURN]


async def test_without_a_script_there_is_a_reply(tmp_path: Path) -> None:
    engine = load_fake_engine(write_fake_model(tmp_path), FakeScript.read(None), context_length=30)
    assert (await engine.start()).context_length == 30
    assert await read(engine, request())


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"[]",
        b'{"replies": []}',
        b'{"replies": "Hi"}',
        b'{"delay": 1}',
        b'{"replies": [1]}',
        b'{"answers": {"": "Hi"}}',
    ],
)
def test_a_bad_script_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "script.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"script\.json"):
        FakeScript.read(file)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", None),
        ("tokenizer.json", b"nonsense"),
        ("config.json", None),
        ("config.json", b"["),
        ("config.json", b"[]"),
        ("generation_config.json", json.dumps({}).encode()),
    ],
)
def test_a_broken_model_directory_is_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    model = write_fake_model(tmp_path)
    (model / name).unlink()
    if content is not None:
        (model / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        load_fake_engine(model, FakeScript.read(None))
