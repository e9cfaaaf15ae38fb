"""A valid trace of the caller is continued, else a new one begins; headers and log agree on it."""

import re
from typing import Any

import pytest

from support.fake_server import fake_server
from turnwise_server.api.telemetry.trace_context import RANDOM, TraceContext, new_span, parse_traceparent
from turnwise_server.auth import KeyRing, hash_key

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("header", "flags"),
    [
        (f"00-{TRACE}-{SPAN}-01", 1),
        (f"00-{TRACE}-{SPAN}-00", 0),
        (f"00-{TRACE}-{SPAN}-03", 3),
        (f"00-{TRACE}-{SPAN}-ff", 3),
        (f" 00-{TRACE}-{SPAN}-01\t", 1),
        (f"01-{TRACE}-{SPAN}-01", 1),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-brings", 1),
    ],
)
def test_a_valid_traceparent_is_read(header: str, flags: int) -> None:
    assert parse_traceparent([header]) == TraceContext(TRACE, SPAN, flags)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [""],
        ["00"],
        [f"00-{TRACE}-{SPAN}"],
        [f"00-{TRACE}-{SPAN}-1"],
        [f"00-{TRACE}-{SPAN}-01-more"],
        [f"00-{TRACE}-{SPAN}-01\n"],
        [f"cc-{TRACE}-{SPAN}-01more"],
        [f"ff-{TRACE}-{SPAN}-01"],
        [f"00-{'0' * 32}-{SPAN}-01"],
        [f"00-{TRACE}-{'0' * 16}-01"],
        [f"00-{TRACE.upper()}-{SPAN}-01"],
        [f"00-{TRACE[:-1]}g-{SPAN}-01"],
        [f"00-{TRACE}-{SPAN}-01"] * 2,
        [f"00-{TRACE}-{SPAN}-01," * 2],
        [f"\u0660\u0660-{TRACE}-{SPAN}-01"],
    ],
)
def test_anything_else_is_no_traceparent(headers: list[str]) -> None:
    assert parse_traceparent(headers) is None


def test_a_new_span_continues_the_callers_trace_or_begins_one() -> None:
    child = new_span(TraceContext(TRACE, SPAN, 1))
    assert (child.trace_id, child.flags) == (TRACE, 1)
    assert child.span_id != SPAN
    first, second = new_span(None), new_span(None)
    assert first.trace_id != second.trace_id
    assert first.flags == RANDOM, "not sampled: nobody records it"
    assert parse_traceparent([first.traceparent]) == first


@pytest.mark.parametrize("path", ["/v1/models", "/nope", "/health"])
async def test_every_reply_continues_the_trace_and_the_log_has_it(
    path: str, log_lines: list[dict[str, Any]]
) -> None:
    async with fake_server(keys=KeyRing([hash_key("k")])) as server:
        reply = await server.client.get(path, headers={"traceparent": f"00-{TRACE}-{SPAN}-01"})
        own = await server.client.get(path, headers={"traceparent": "canary"})
    assert re.fullmatch(rf"00-{TRACE}-[0-9a-f]{{16}}-01", reply.headers["traceparent"])
    assert SPAN not in reply.headers["traceparent"]
    fresh = parse_traceparent([own.headers["traceparent"]])
    assert fresh
    assert [line["trace_id"] for line in log_lines] == [TRACE, fresh.trace_id]
