"""Bodies that are no request at all: each is refused with a helpful text, and nothing hangs."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.fake_server import HELLO, fake_server
from support.tool_templates import HERMES
from turnwise_server.api.chat_completions.request import (
    ChatCompletionRequest,
    parse_chat_request,
    turn_request,
)
from turnwise_server.api.errors import ERROR_CODES, ApiError
from turnwise_server.api.gates.body import parse_json_object
from turnwise_server.errors import RequestError

GOOD = json.dumps({"model": "test", "messages": HELLO})


def with_value(text: str) -> bytes:
    """A good request whose temperature is this piece of JSON."""
    return GOOD.replace("{", '{"temperature":' + text + ",", 1).encode()


NOT_JSON = {
    "empty": b"",
    "blank": b" \n ",
    "text": b"hello",
    "cut": GOOD[:-1].encode(),
    "two documents": (GOOD + GOOD).encode(),
    "trailing comma": b'{"model":"test",}',
    "comment": b'{"model":"test"} // hi',
    "single quotes": b"{'model':'test'}",
    "array": b"[1,2]",
    "string": b'"hello"',
    "null": b"null",
    "NaN": with_value("NaN"),
    "Infinity": with_value("Infinity"),
    "-Infinity": with_value("-Infinity"),
    "number of 5000 digits": with_value("1" + "0" * 5000),
    "60,000 arrays deep": b"[" * 60_000 + b"]" * 60_000,
    "60,000 objects deep": b'{"a":' * 60_000 + b"1" + b"}" * 60_000,
    "deep inside a field": with_value("[" * 60_000 + "]" * 60_000),
    "bytes that are not UTF-8": GOOD.replace("hello", "h\xff").encode("latin-1"),
    "UTF-16": GOOD.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + GOOD.encode(),
    "an encoded surrogate": GOOD.encode().replace(b"hello", b"\xed\xa0\x80"),
    "a lone high surrogate": GOOD.replace("hello", "\\ud83d").encode(),
    "a lone low surrogate": GOOD.replace("hello", "\\ude00").encode(),
    "two high surrogates": GOOD.replace("hello", "\\ud83d\\ud83d").encode(),
    "a raw NUL in a string": GOOD.encode().replace(b"hello", b"\0"),
    "a NUL byte behind": GOOD.encode() + b"\0",
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
async def test_a_body_that_is_not_a_json_object_is_refused(body: bytes) -> None:
    async with fake_server() as server:
        reply = await server.client.post("/v1/chat/completions", content=body)
    error = reply.json()["error"]
    assert (reply.status_code, error["type"], error["code"]) == (400, "invalid_request_error", "invalid_json")
    assert error["message"].startswith("We could not parse the JSON body of your request.")
    assert error["param"] is None


@pytest.mark.parametrize("number", ["1e400", "[[-1e999]]"])
async def test_no_free_json_holds_a_number_that_could_not_be_written_again(number: str) -> None:
    free = f'{{"type": "object", "properties": {{"a": {{"default": {number}}}}}}}'
    call = f'{{"role": "assistant", "content": [{{"type": "tool_use", "id": "a", "name": "f", "input": {free}}}]}}'
    bodies = {
        "/v1/chat/completions": f'"tools": [{{"type": "function", "function": {{"name": "f", "parameters": {free}}}}}]',
        "/v1/responses": f'"input": "hi", "tools": [{{"type": "function", "name": "f", "parameters": {free}}}]',
        "/v1/messages": f'"max_tokens": 9, "tools": [{{"name": "f", "input_schema": {free}}}]',
        "/v1/messages/count_tokens": f'"messages": [{{"role": "user", "content": "hi"}}, {call}]',
    }
    async with fake_server(template=HERMES) as server:
        for path, fields in bodies.items():
            messages = (
                ""
                if "messages" in fields or path == "/v1/responses"
                else f', "messages": {json.dumps(HELLO)}'
            )
            reply = await server.client.post(path, content=f'{{"model": "test", {fields}{messages}}}')
            assert reply.status_code == 400, path
            assert "a number that is too large" in reply.json()["error"]["message"], reply.text


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" + "0" * 4000, "9" * 400, "1e1000000000"])
async def test_a_number_beyond_all_bounds_is_refused(number: str) -> None:
    async with fake_server() as server:
        reply = await server.client.post("/v1/chat/completions", content=with_value(number))
    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (400, "temperature")
    assert error["code"] in {"decimal_above_max_value", "decimal_below_min_value"}


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "application/json",
        "application/json; charset=utf-8",
        "APPLICATION/JSON",
        "application/vnd.api+json",
        "text/plain",
        "application/x-www-form-urlencoded",
    ],
)
async def test_json_is_read_whatever_curl_calls_it(content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    async with fake_server() as server:
        reply = await server.client.post("/v1/chat/completions", content=GOOD, headers=headers)
    assert reply.status_code == 200


@pytest.mark.parametrize(
    "content_type", ["multipart/form-data; boundary=x", "image/png", "text/html", "nonsense"]
)
async def test_a_clearly_wrong_content_type_is_refused(content_type: str) -> None:
    async with fake_server() as server:
        reply = await server.client.post(
            "/v1/chat/completions", content=GOOD, headers={"content-type": content_type}
        )
    assert (reply.status_code, reply.json()["error"]["code"]) == (415, "unsupported_media_type")


async def test_a_compressed_body_is_refused() -> None:
    async with fake_server() as server:
        reply = await server.client.post(
            "/v1/chat/completions", content=b"\x1f\x8b", headers={"content-encoding": "gzip"}
        )
    assert (reply.status_code, reply.json()["error"]["code"]) == (415, "unsupported_media_type")
    assert "content-encoding" in reply.json()["error"]["message"]


async def test_form_fields_get_a_hint_at_json() -> None:
    async with fake_server() as server:
        reply = await server.client.post("/v1/chat/completions", data={"model": "test"})
    assert reply.status_code == 400
    assert "content-type: application/json" in reply.json()["error"]["message"]


async def test_a_body_declared_too_large_is_refused_unread() -> None:
    reads = 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal reads
        reads += 1
        yield b"{}"

    async with fake_server() as server:
        request = httpx2.Request(
            "POST",
            "http://127.0.0.1/v1/chat/completions",
            content=counted(),
            headers={"content-length": str(10**9)},
        )
        reply = await server.client.send(request)
    assert reads == 0
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "request_too_large")
    assert "4194304 bytes" in reply.json()["error"]["message"]


async def test_a_body_of_unknown_size_is_cut_at_the_limit() -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1000
            yield b" " * 1000

    async with fake_server(settings={"max_body_bytes": 10_000}) as server:
        reply = await server.client.post("/v1/chat/completions", content=endless())
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "request_too_large")
    assert read <= 12_000


async def test_a_large_body_within_the_limit_is_served() -> None:
    messages = [
        {"role": "user", "content": "hello " * 30_000},
        {"role": "assistant", "content": "ok"},
        *HELLO,
    ]
    async with fake_server() as server:
        reply = await server.chat(messages=messages)
    assert reply.status_code == 200
    assert reply.headers["x-context-truncated"] == "2"


async def test_a_body_that_does_not_arrive_times_out() -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(30)

    async with fake_server(settings={"request_timeout_s": 0.05}) as server:
        reply = await server.client.post("/v1/chat/completions", content=slow())
    assert (reply.status_code, reply.json()["error"]["code"]) == (408, "request_timeout")


PATIENT = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
FIELDS = st.sampled_from(sorted(ChatCompletionRequest.model_fields))
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.sampled_from(["user", "assistant", "system", "tool"]) | JSON_VALUES,
            "content": st.text(max_size=20)
            | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": JSON_VALUES}), max_size=3)
            | JSON_VALUES,
            "name": JSON_VALUES,
            "refusal": JSON_VALUES,
        },
    ),
    max_size=4,
)


@given(st.dictionaries(FIELDS, JSON_VALUES, max_size=5), MESSAGES | JSON_VALUES)
@settings(PATIENT, max_examples=150)
async def test_no_body_makes_the_server_fail(fields: dict[str, object], messages: object) -> None:
    async with fake_server("Hi!") as server:
        body = {**fields, "model": "test", "messages": messages}
        try:
            content = json.dumps(body)
        except UnicodeEncodeError:
            return
        reply = await server.client.post("/v1/chat/completions", content=content.encode())
    assert reply.status_code in {200, 400}, reply.text
    if reply.status_code == 400:
        error = reply.json()["error"]
        assert set(error) >= {"message", "type", "param", "code"}
        assert error["code"] in ERROR_CODES


@settings(PATIENT)
@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode(errors="surrogatepass")))
def test_parsing_raises_nothing_but_refusals(body: bytes) -> None:
    with contextlib.suppress(ApiError, RequestError):
        parse_chat_request(parse_json_object(body), max_messages=8)


@settings(PATIENT)
@given(st.dictionaries(FIELDS, JSON_VALUES, max_size=6))
def test_what_passes_validation_can_be_handed_on(fields: dict[str, object]) -> None:
    with contextlib.suppress(RequestError):
        request = parse_chat_request({**fields, "model": "m", "messages": HELLO}, max_messages=8)
        turn = turn_request(request, id="r", tenant="", default_max_tokens=5, default_truncation="auto")
        assert turn.max_tokens
        assert turn.n >= 1
