"""What one process says is what the other hears."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from turnwise_server.engine.base import (
    EngineInfo,
    FinishReason,
    GenerationRequest,
    SamplingParams,
    TokenEvent,
    TokenLogprobs,
)
from turnwise_server.engine.messages import (
    FrameReader,
    decode_info,
    decode_request,
    decode_update,
    encode_info,
    encode_request,
    encode_update,
    frame,
)
from turnwise_server.engine.updates import CoreCounters, StepResult, StepUpdate

tokens = st.integers(0, 300_000)
numbers = st.floats(-1e4, 1e4)
logprobs = st.builds(TokenLogprobs, numbers, st.lists(st.tuples(tokens, numbers), max_size=3).map(tuple))
params = st.builds(
    SamplingParams,
    max_tokens=st.integers(1, 10**6),
    temperature=st.floats(0, 2),
    top_p=st.floats(0, 1),
    top_k=st.integers(0, 1000),
    min_p=st.floats(0, 1),
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    presence_penalty=numbers,
    frequency_penalty=numbers,
    repetition_penalty=numbers,
    logit_bias=st.dictionaries(tokens, numbers, max_size=3),
    stop_token_ids=st.frozensets(tokens, max_size=3),
    top_logprobs=st.none() | st.integers(0, 20),
    grammar=st.none() | st.text(),
)
requests = st.builds(
    GenerationRequest, st.text(), st.lists(tokens, max_size=20).map(tuple), params, tenant=st.text()
)
events = st.builds(
    TokenEvent, tokens, st.none() | st.sampled_from(FinishReason), st.none() | logprobs, st.integers(0, 9)
)
results = st.builds(StepResult, st.integers(0), events) | st.builds(
    StepResult, st.integers(0), st.none(), st.text(min_size=1), st.booleans()
)
updates = st.builds(
    StepUpdate,
    st.lists(st.integers(0), max_size=3).map(tuple),
    st.lists(results, max_size=5).map(tuple),
    st.builds(CoreCounters, st.integers(0), st.integers(0), st.integers(0), st.floats(0, 1)),
    st.floats(0, 1),
)


def through_the_wire(message: list[object], cut: int = 5) -> list[object]:
    """Send a message in two parts, with the beginning of another behind it."""
    data = frame(message) + frame(["next"])[:3]
    reader = FrameReader()
    heard = [*reader.feed(data[:cut]), *reader.feed(data[cut:])]
    assert len(heard) == 1
    return heard[0]


@given(st.integers(0, 2**62), requests)
def test_requests_arrive_unchanged(key: int, request: GenerationRequest) -> None:
    assert decode_request(through_the_wire(encode_request(key, request))) == (key, request)


@given(updates, st.integers(0, 40))
def test_updates_arrive_unchanged(update: StepUpdate, cut: int) -> None:
    assert decode_update(through_the_wire(encode_update(update), cut)) == update


def test_info_arrives_unchanged() -> None:
    info = EngineInfo(2048, 16384, "abc", "bfloat16", "cpu", frozenset({1, 2}))
    assert decode_info(through_the_wire(encode_info(info))) == info


def test_many_messages_may_come_in_any_pieces() -> None:
    data = b"".join(frame(["step", index, "é" * index]) for index in range(50))
    reader = FrameReader()
    heard = [message for start in range(0, len(data), 7) for message in reader.feed(data[start : start + 7])]
    assert [message[1] for message in heard] == list(range(50))
