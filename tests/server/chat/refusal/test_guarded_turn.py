"""What a guarded reply does when checks fail, come late or find something, with scripted and with real turns."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Sequence

import pytest

from support.fake_server import END_OF_TURN, TOKENIZER, encode
from support.scripted_turn import ScriptedTurn, text_events
from support.virtual_time import run_virtually
from turnwise_server.chat.refusal.guarded_choice import Blocked, GuardedEvent
from turnwise_server.chat.refusal.guarded_turn import Guard, GuardedTurn, Source
from turnwise_server.chat.refusal.hold_back import HoldBackRule
from turnwise_server.chat.refusal.verdict import ModerationUnavailableError, Verdict
from turnwise_server.chat.token_text import token_bytes
from turnwise_server.chat.turn import ChoiceFinished, TextDelta, TokenText, Turn, TurnEvent
from turnwise_server.engine.base import Generation, GenerationRequest, SamplingParams
from turnwise_server.engine.fake_engine import FakeEngine
from turnwise_server.engine.timeline import Timeline
from turnwise_server.errors import EngineDeadError, QueueFullError

HARM = Verdict("block", "weapons", {"weapons": 0.9})
LONG = "the quick brown fox jumps over the lazy dog " * 12


async def passes(index: int, window: str, offset: int) -> Verdict:
    return Verdict()


async def blocks_bad(index: int, window: str, offset: int) -> Verdict:
    return HARM if "bad" in window else Verdict()


async def regenerates_bad(index: int, window: str, offset: int) -> Verdict:
    return Verdict("regenerate", "weapons") if "bad" in window else Verdict()


async def fails(index: int, window: str, offset: int) -> Verdict:
    raise OSError("the detector is gone")


async def hangs(index: int, window: str, offset: int) -> Verdict:
    await asyncio.sleep(3600)
    return Verdict()


def text_of(events: Sequence[GuardedEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def play(turn_of: ScriptedTurn, guard: Guard, *, choices: int = 1) -> list[GuardedEvent]:
    async def run() -> list[GuardedEvent]:
        return [event async for event in GuardedTurn(turn_of, guard, choices=choices)]

    return run_virtually(run())


def test_a_block_stops_the_generation_of_its_choice_and_of_no_other() -> None:
    source = ScriptedTurn(text_events("bad" + LONG), text_events(LONG, index=1), delay_s=0.01)
    events = play(source, Guard(blocks_bad), choices=2)
    assert Blocked(0, "output", "weapons", "block", held_chars=40) in events
    assert ChoiceFinished(1, "stop") in events
    assert text_of(events) == LONG
    assert source.completion_tokens < len(LONG) + 100


def test_a_word_split_over_chunks_is_found_before_any_of_it_is_shown() -> None:
    said = LONG[:200] + "ba" + "d" + LONG
    events = play(ScriptedTurn(text_events(said, [1, 2, 201])), Guard(blocks_bad))
    assert isinstance(events[-1], Blocked)
    assert text_of(events) == LONG[:40]
    assert events[-1].sent_chars == 40, "what the check before it, at 120, had released"


@pytest.mark.parametrize("judge", [fails, hangs])
def test_what_cannot_be_checked_ends_the_reply_where_the_policy_is_closed(judge: object) -> None:
    source = ScriptedTurn(text_events(LONG), delay_s=0.01)
    with pytest.raises(ModerationUnavailableError):
        play(source, Guard(judge))  # type: ignore[arg-type]  # parametrize loses the type
    assert source.is_cancelled


@pytest.mark.parametrize("judge", [fails, hangs])
def test_what_cannot_be_checked_is_shown_and_marked_where_the_policy_is_open(judge: object) -> None:
    async def run() -> tuple[list[GuardedEvent], GuardedTurn]:
        guard = Guard(judge, on_error="open")  # type: ignore[arg-type]  # parametrize loses the type
        turn = GuardedTurn(ScriptedTurn(text_events(LONG)), guard)
        return [event async for event in turn], turn

    events, turn = run_virtually(run())
    assert text_of(events) == LONG
    assert turn.audits[0].is_unchecked


def test_no_token_leaves_before_the_verdict_on_the_input_though_the_model_goes_on() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        source = ScriptedTurn(text_events("hello"), delay_s=0.01)
        turn = GuardedTurn(
            source, Guard(passes), input_verdict=asyncio.sleep(1, Verdict("annotate", "medical"))
        )
        events = aiter(turn)
        assert await anext(events) == TextDelta(0, "h")
        assert loop.time() == pytest.approx(1)
        assert source.completion_tokens == 6
        assert turn.input_verdict.category == "medical"
        assert len([event async for event in events]) == 5

    run_virtually(run())


def test_a_refused_question_shows_nothing_of_its_answer() -> None:
    async def run() -> tuple[list[GuardedEvent], GuardedTurn, ScriptedTurn]:
        source = ScriptedTurn(text_events("bad"), text_events("fine", index=1), delay_s=0.01)
        refusal = asyncio.sleep(0.5, Verdict("refuse", "weapons"))
        turn = GuardedTurn(source, Guard(blocks_bad), choices=2, input_verdict=refusal)
        return [event async for event in turn], turn, source

    events, turn, source = run_virtually(run())
    assert [(e.stage, e.sent_chars, e.finish_reason) for e in events if isinstance(e, Blocked)] == [
        ("input", 0, "stop"),
        ("input", 0, "stop"),
    ]
    assert len(events) == 2
    assert source.is_cancelled
    assert [audit.sent_chars for audit in turn.audits] == [0, 0]


def test_an_input_that_cannot_be_checked_in_time_ends_the_reply_where_the_policy_is_closed() -> None:
    async def run() -> None:
        turn = GuardedTurn(
            ScriptedTurn(text_events(LONG)), Guard(passes), input_verdict=asyncio.sleep(3600, Verdict())
        )
        async for _ in turn:
            pytest.fail("nothing may be shown")

    with pytest.raises(ModerationUnavailableError):
        run_virtually(run())


def test_a_reply_is_generated_again_once_while_nothing_of_it_was_shown() -> None:
    again = ScriptedTurn(text_events("fine"))
    events = play(
        ScriptedTurn(text_events(LONG, index=0), text_events("bad" + LONG, index=1), delay_s=0.01),
        Guard(regenerates_bad, regenerate=lambda index: again),
        choices=2,
    )
    assert "".join(e.text for e in events if isinstance(e, TextDelta) and e.index == 1) == "fine"
    assert ChoiceFinished(1, "stop") in events
    assert not any(isinstance(event, Blocked) for event in events)


def test_a_second_attempt_that_is_no_better_is_blocked_and_both_are_audited() -> None:
    async def run() -> tuple[list[GuardedEvent], GuardedTurn]:
        guard = Guard(regenerates_bad, regenerate=lambda index: ScriptedTurn(text_events("bad again")))
        turn = GuardedTurn(ScriptedTurn(text_events("bad")), guard)
        return [event async for event in turn], turn

    events, turn = run_virtually(run())
    assert events == [Blocked(0, "output", "weapons", "regenerate", held_chars=9)]
    assert [audit.held_chars for audit in turn.audits] == [3, 9]
    assert turn.completion_tokens == 4 + 10


def test_no_second_attempt_is_made_once_something_was_shown_or_without_room() -> None:
    def no_room(index: int) -> Source:
        raise QueueFullError

    def not_now(index: int) -> Source:
        pytest.fail("something was shown")

    events = play(ScriptedTurn(text_events("bad")), Guard(regenerates_bad, regenerate=no_room))
    assert isinstance(events[-1], Blocked)
    events = play(ScriptedTurn(text_events(LONG + "bad")), Guard(regenerates_bad, regenerate=not_now))
    assert isinstance(events[-1], Blocked)


def test_logprobs_of_held_text_are_held_too() -> None:
    words = [f"w{number:03} " for number in range(40)]
    said: list[TurnEvent] = [
        TextDelta(0, word, (TokenText(word, -1.0, tuple(word.encode()), offset=5 * at),))
        for at, word in enumerate(words)
    ]
    shown = 0
    for event in play(ScriptedTurn([*said, ChoiceFinished(0, "stop")]), Guard(passes)):
        if isinstance(event, TextDelta):
            shown += len(event.text)
            assert all(token.offset + len(token.token) <= shown for token in event.logprobs)
    merged: list[TurnEvent] = [TextDelta(0, "".join(words), tuple(t for d in said for t in d.logprobs))]  # type: ignore[union-attr]
    events = play(ScriptedTurn([*merged, ChoiceFinished(0, "stop")]), Guard(passes))
    assert [len(e.logprobs) for e in events if isinstance(e, TextDelta)] == [0, 40], "with the last character"


def test_a_fault_of_the_engine_is_raised_and_ends_the_checks() -> None:
    source = ScriptedTurn(text_events(LONG)[:-1], fault=EngineDeadError("gone"))
    with pytest.raises(EngineDeadError):
        play(source, Guard(hangs))


def test_cancelling_mid_hold_ends_the_reply_without_a_finish() -> None:
    async def run() -> list[GuardedEvent]:
        turn = GuardedTurn(ScriptedTurn(text_events(LONG), delay_s=0.01), Guard(hangs, max_hold_s=1000))
        asyncio.get_running_loop().call_later(2, turn.cancel)
        return [event async for event in turn]

    assert run_virtually(run()) == []


def test_a_turn_that_nobody_reads_leaves_nothing_behind() -> None:
    async def run() -> None:
        turn = GuardedTurn(
            ScriptedTurn(text_events(LONG)), Guard(passes), input_verdict=asyncio.sleep(9, Verdict())
        )
        turn.cancel()
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    run_virtually(run())
    gc.collect()


@pytest.mark.parametrize("chunk", [4, 100_000])
def test_a_reply_of_100_000_characters_takes_linear_time(chunk: int) -> None:
    text = (LONG * 200)[:100_000]
    started = time.process_time()
    events = play(ScriptedTurn(text_events(text, [chunk])), Guard(passes))
    assert text_of(events) == text
    assert time.process_time() - started < 10, "about a second; quadratic work would take minutes"


class WholeTurn:
    """A real turn on the fake engine, of which single choices can be cancelled."""

    def __init__(self, generations: tuple[Generation, ...], stop: tuple[str, ...]) -> None:
        self._generations = generations
        self._turn = Turn(
            generations, tokenizer=TOKENIZER.backend_tokenizer, token_bytes=token_bytes(TOKENIZER), stop=stop
        )

    @property
    def cached_tokens(self) -> int:
        return self._turn.cached_tokens

    @property
    def completion_tokens(self) -> int:
        return self._turn.completion_tokens

    @property
    def timelines(self) -> tuple[Timeline, ...]:
        return self._turn.timelines

    def cancel(self) -> None:
        self._turn.cancel()

    def cancel_choice(self, index: int) -> None:
        self._generations[index].cancel()

    def __aiter__(self) -> AsyncIterator[TurnEvent]:
        return aiter(self._turn)


async def real_turn(*replies: str, stop: tuple[str, ...] = ()) -> tuple[WholeTurn, FakeEngine]:
    engine = FakeEngine(
        [encode(reply) for reply in replies],
        vocab_size=len(TOKENIZER),
        stop_token_ids=frozenset({END_OF_TURN}),
        context_length=4096,
    )
    await engine.start()
    sampling = SamplingParams(max_tokens=2000, stop_token_ids=frozenset({END_OF_TURN}))
    generations = tuple(
        engine.submit(GenerationRequest(f"g{index}", (1,), sampling)) for index in range(len(replies))
    )
    return WholeTurn(generations, stop), engine


async def test_a_real_turn_shows_whole_characters_and_stops_where_it_is_blocked() -> None:
    fine = "日本 🎉 é " * 30
    source, engine = await real_turn(fine, fine[:150] + " bad " + fine)
    events = [event async for event in GuardedTurn(source, Guard(blocks_bad), choices=2)]
    said = ["".join(e.text for e in events if isinstance(e, TextDelta) and e.index == i) for i in range(2)]
    assert said[0] == fine
    assert fine.startswith(said[1])
    assert len(said[1]) == 40
    assert [e.index for e in events if isinstance(e, Blocked)] == [1]
    assert engine.stats().running == 0


async def test_a_stop_string_cuts_the_window_and_what_follows_it_is_not_judged() -> None:
    source, _ = await real_turn(LONG[:130] + "STOP bad bad", stop=("STOP",))
    events = [event async for event in GuardedTurn(source, Guard(blocks_bad))]
    assert text_of(events) == LONG[:130]
    assert events[-1] == ChoiceFinished(0, "stop", "STOP")


async def test_an_empty_real_reply_is_finished_without_a_check() -> None:
    source, _ = await real_turn("")
    events = [event async for event in GuardedTurn(source, Guard(fails, HoldBackRule("full")))]
    assert events == [ChoiceFinished(0, "stop")]
