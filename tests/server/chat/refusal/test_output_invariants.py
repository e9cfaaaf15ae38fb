"""What holds for a guarded reply, whatever it says, however it is cut, whatever the judge thinks, however slowly."""

# ruff: noqa: N802 - the invariants have names

from __future__ import annotations

import asyncio
import importlib
import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from support.scripted_turn import ScriptedTurn, text_events
from support.virtual_time import run_virtually
from turnwise_server.chat.refusal.guarded_choice import Blocked, ChoiceAudit, GuardedEvent
from turnwise_server.chat.refusal.guarded_turn import Guard, GuardedTurn
from turnwise_server.chat.refusal.hold_back import HoldBack, HoldBackRule, Mode
from turnwise_server.chat.refusal.verdict import Verdict
from turnwise_server.chat.turn import ChoiceFinished, TextDelta, ToolCallDelta, TurnEvent

CLUSTERS = importlib.import_module("regex").compile(r"\X")
MARKER = "forbidden"
Opinion = Callable[[str], Verdict]

PIECES = (
    ["a", "b", " ", "word ", MARKER[:4]],
    ["a", "é", "日", "本 ", "\r", "\n"],
    ["a\u0301", "\u0301", "\u200d", "👩", "👩\u200d👧", "🇫", "🇷", "\r\n", "क्षि", "각", "\u1100", "x"],
)


def say(length: int, pieces: list[str], seed: int) -> str:
    """Long texts by a seed: hypothesis itself writes short ones."""
    return "".join(random.Random(seed).choices(pieces, k=length))


texts = st.builds(say, st.integers(0, 600), st.sampled_from(PIECES), st.integers(0, 2**16))
marked_texts = st.builds(lambda before, after: before + MARKER + after, texts, texts)
any_texts = st.one_of(texts, marked_texts, st.text(max_size=400))
chunkings = st.lists(st.integers(1, 300), min_size=1, max_size=8)
latencies = st.lists(st.sampled_from([0.0, 0.01, 0.1, 1.0]), min_size=1, max_size=6)
delays = st.sampled_from([0.0, 0.001, 0.05])
rules = st.builds(
    lambda mode, stride, hold, more: HoldBackRule(mode, stride, hold, stride + hold + more),
    st.sampled_from(["hold_back", "full"]),
    st.integers(20, 200),
    st.integers(40, 120),
    st.integers(0, 300),
)


def blocks_marker(window: str) -> Verdict:
    is_bad = MARKER in window
    return Verdict("block" if is_bad else "allow", "rules" if is_bad else None, {"rules": float(is_bad)})


def blocks_at_random(one_in: int) -> Opinion:
    """Any function of the window will do: this one has no pattern."""

    def judge(window: str) -> Verdict:
        score = zlib.crc32(window.encode("utf-8", "surrogatepass")) % one_in / one_in
        return Verdict("block" if score == 0 else "allow", "noise", {"noise": 1 - score})

    return judge


opinions = st.one_of(st.just(blocks_marker), st.integers(2, 40).map(blocks_at_random))


@dataclass(slots=True)
class Played:
    """What a client saw of a reply, and what the judge saw."""

    events: list[GuardedEvent] = field(default_factory=list)
    passes: list[tuple[int, list[tuple[int, int]]]] = field(default_factory=list)
    """For every event: its choice, and the windows (start, end) of that choice that had passed by then."""
    audits: tuple[ChoiceAudit, ...] = ()
    is_cancelled: bool = False
    judging: int = 0

    def text(self, index: int = 0) -> str:
        return "".join(e.text for e in self.events if isinstance(e, TextDelta) and e.index == index)

    def arguments(self) -> str:
        return "".join(e.arguments for e in self.events if isinstance(e, ToolCallDelta))

    def blocked(self, index: int = 0) -> Blocked | None:
        """The block without `held_chars`, which tells how far the model was ahead."""
        found = [e for e in self.events if isinstance(e, Blocked) and e.index == index]
        return replace(found[0], held_chars=0) if found else None


def play(
    choices: Sequence[Sequence[TurnEvent]],
    opinion: Opinion,
    rule: HoldBackRule,
    waits: Sequence[float] = (0.0,),
    delay_s: float = 0.0,
    leave_after: int | None = None,
) -> Played:
    played = Played()
    passed: dict[int, list[tuple[int, int]]] = {index: [] for index in range(len(choices))}

    async def judge(index: int, window: str, offset: int) -> Verdict:
        played.judging += 1
        try:
            await asyncio.sleep(waits[offset % len(waits)])
        finally:
            played.judging -= 1
        verdict = opinion(window)
        if not verdict.stops:
            passed[index].append((offset - len(window), offset))
        return verdict

    async def run() -> Played:
        source = ScriptedTurn(*choices, delay_s=delay_s)
        turn = GuardedTurn(source, Guard(judge, rule), choices=len(choices))
        events = aiter(turn)
        async for event in events:
            played.events.append(event)
            played.passes.append((event.index, list(passed[event.index])))
            if len(played.events) == leave_after:
                break
        await events.aclose()  # type: ignore[attr-defined]  # an async generator, as that of Turn
        played.audits = turn.audits
        played.is_cancelled = source.is_cancelled
        return played

    return run_virtually(run())


@given(any_texts, chunkings, opinions, rules, latencies, delays)
def test_invariant_I1_every_character_shown_was_in_a_window_that_passed_and_saw_what_follows(
    text: str, chunks: list[int], opinion: Opinion, rule: HoldBackRule, waits: list[float], delay_s: float
) -> None:
    played = play([text_events(text, chunks)], opinion, rule, waits, delay_s)
    shown = 0
    for event, (_, passes) in zip(played.events, played.passes, strict=True):
        if not isinstance(event, TextDelta):
            continue
        for at in range(shown, shown + len(event.text)):
            assert any(
                start <= at < end and (at < end - rule.hold_chars or end == len(text))
                for start, end in passes
            )
        shown += len(event.text)


@given(any_texts, chunkings, opinions, rules, latencies, delays)
def test_invariant_I2_nothing_is_sent_after_a_block(
    text: str, chunks: list[int], opinion: Opinion, rule: HoldBackRule, waits: list[float], delay_s: float
) -> None:
    played = play([text_events(text, chunks)], opinion, rule, waits, delay_s)
    *before, last = played.events
    assert isinstance(last, Blocked | ChoiceFinished)
    assert not any(isinstance(event, Blocked | ChoiceFinished) for event in before)
    assert text.startswith(played.text())
    if isinstance(last, Blocked):
        assert last.sent_chars == len(played.text())
        assert last.finish_reason == "content_filter"
    else:
        assert played.text() == text


@given(any_texts, chunkings, opinions, rules, latencies, delays)
def test_invariant_I3_streamed_and_whole_replies_get_the_same_verdict(
    text: str, chunks: list[int], opinion: Opinion, rule: HoldBackRule, waits: list[float], delay_s: float
) -> None:
    streamed = play([text_events(text, chunks)], opinion, rule, waits, delay_s)
    whole = play([text_events(text, [max(1, len(text))])], opinion, rule)
    assert streamed.text() == whole.text()
    assert streamed.blocked() == whole.blocked()
    assert streamed.audits[0].scores == whole.audits[0].scores
    assert streamed.audits[0].checks == whole.audits[0].checks


@given(any_texts, opinions, rules)
def test_invariant_I4_text_is_released_between_whole_characters_only(
    text: str, opinion: Opinion, rule: HoldBackRule
) -> None:
    boundaries = {0, *(cluster.end() for cluster in CLUSTERS.finditer(text))}
    hold = HoldBack(rule)
    hold.feed(text)
    hold.end()
    while check := hold.due:
        if opinion(check.window).stops:
            hold.block()
        else:
            hold.passed(check)
        assert hold.released in boundaries
    played = play([text_events(text, [max(1, len(text))])], opinion, rule)
    assert len(played.text()) == hold.released


@given(any_texts, chunkings, st.integers(2, 40), rules, latencies)
def test_invariant_I5_the_highest_score_is_kept_and_later_text_undoes_no_block(
    text: str, chunks: list[int], one_in: int, rule: HoldBackRule, waits: list[float]
) -> None:
    seen: list[Verdict] = []

    def opinion(window: str) -> Verdict:
        seen.append(blocks_at_random(one_in)(window))
        return seen[-1]

    played = play([text_events(text, chunks)], opinion, rule, waits, 0.001)
    (audit,) = played.audits
    highest = max((verdict.scores["noise"] for verdict in seen), default=None)
    assert audit.scores.get("noise") == highest
    assert audit.verdict.stops == any(verdict.stops for verdict in seen)
    assert not any(verdict.stops for verdict in seen[:-1]), "nothing is checked after a block"


@given(texts, texts, texts, chunkings, rules, latencies)
def test_invariant_I6_arguments_of_calls_are_checked_before_they_are_shown(
    content: str, before: str, after: str, chunks: list[int], rule: HoldBackRule, waits: list[float]
) -> None:
    arguments = before + MARKER + after
    pieces = [e for e in text_events(arguments, chunks) if isinstance(e, TextDelta)]
    events: list[TurnEvent] = [
        *text_events(content, chunks)[:-1],
        ToolCallDelta(0, 0, "", "call_1", "send"),
        *(ToolCallDelta(0, 0, piece.text) for piece in pieces),
        ChoiceFinished(0, "tool_calls"),
    ]
    played = play([events], blocks_marker, rule, waits, 0.001)
    blocked = played.blocked()
    assert blocked is not None
    assert MARKER not in played.text()
    assert MARKER not in played.arguments()
    assert blocked.sent_chars == len(played.text()) + len(played.arguments())


@given(st.lists(any_texts, min_size=1, max_size=4), chunkings, opinions, rules, latencies, delays)
@settings(max_examples=50)
def test_invariant_I7_choices_are_independent(
    said: list[str],
    chunks: list[int],
    opinion: Opinion,
    rule: HoldBackRule,
    waits: list[float],
    delay_s: float,
) -> None:
    choices = [text_events(text, chunks, index=index) for index, text in enumerate(said)]
    together = play(choices, opinion, rule, waits, delay_s)
    for index, text in enumerate(said):
        alone = play([text_events(text, chunks)], opinion, rule, waits, delay_s)
        assert together.text(index) == alone.text()
        blocked = alone.blocked()
        assert together.blocked(index) == (blocked and replace(blocked, index=index))


@given(marked_texts, chunkings, opinions, rules, latencies, st.integers(1, 30), st.sampled_from([1, 2]))
def test_invariant_I8_a_client_that_leaves_ends_generation_and_checks_and_leaves_an_audit(
    text: str, chunks: list[int], opinion: Opinion, rule: HoldBackRule, waits: list[float], leave: int, n: int
) -> None:
    choices = [text_events(text, chunks, index=index) for index in range(n)]
    played = play(choices, opinion, rule, waits, 0.01, leave_after=leave)
    assert played.is_cancelled
    assert played.judging == 0
    assert [audit.index for audit in played.audits] == list(range(n))
    for audit in played.audits:
        assert audit.sent_chars >= len(played.text(audit.index)), "what was on its way may have arrived"


@given(any_texts, chunkings, opinions, latencies)
def test_text_shown_at_once_is_shown_as_it_comes_and_still_flagged(
    text: str, chunks: list[int], opinion: Opinion, waits: list[float]
) -> None:
    mode: Mode = "async"
    played = play([text_events(text, chunks)], opinion, HoldBackRule(mode), waits, 0.01)
    whole = play([text_events(text, chunks)], opinion, HoldBackRule(), waits, 0.01)
    assert text.startswith(played.text())
    assert len(played.text()) >= len(whole.text())
    assert (played.blocked() is None) == (whole.blocked() is None)
