"""Requests and streams against a scripted server: what is sent, what is read, and every way to fail."""

from __future__ import annotations

import json

import pytest

from support.scripted_openai import CONTEXT_LENGTH, MODEL, Script, scripted_openai, unused_url
from turnwise_client.errors import BrokenReplyError, RejectedError, ServerError, UnreachableError
from turnwise_client.http import ChatApi, ChatRequest, explain_rejection
from turnwise_client.settings import Sampling
from turnwise_client.wire import Chunk, ErrorBody, ModelInfo, read_chunk, read_error, read_json, read_models

REQUEST = ChatRequest(MODEL, [{"role": "user", "content": "Hi"}])


def _stream(url: str, *, api_key: str | None = None) -> tuple[list[Chunk], int]:
    api = ChatApi(server=url, api_key=api_key)
    try:
        with api.stream(REQUEST) as stream:
            return list(stream.chunks), stream.dropped_messages
    finally:
        api.close()


@pytest.mark.parametrize("bytes_per_write", [None, 1, 7])
def test_a_stream_is_read_whatever_its_packets(bytes_per_write: int | None) -> None:
    pieces = ["Grüße", " 漢字", "\n\n", "data: not an event", " 😀"]
    with scripted_openai(Script(pieces=pieces, bytes_per_write=bytes_per_write)) as server:
        chunks, _ = _stream(server.url)

    assert [chunk.text for chunk in chunks if chunk.text] == pieces
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]
    assert [chunk.usage.completion_tokens for chunk in chunks if chunk.usage] == [5]


def test_a_stream_asks_for_token_counts_and_sends_only_what_was_set() -> None:
    with scripted_openai() as server:
        api = ChatApi(server=server.url, api_key="tw-secret")
        with api.stream(ChatRequest(MODEL, REQUEST.messages, Sampling(temperature=0.0, seed=5))) as stream:
            list(stream.chunks)
        api.close()

    (seen,) = server.requests
    assert seen.path == "/v1/chat/completions"
    assert seen.headers["authorization"] == "Bearer tw-secret"
    assert seen.body == {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Hi"}],
        "temperature": 0.0,
        "seed": 5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_leaving_a_stream_closes_the_connection() -> None:
    with scripted_openai(Script(pieces=["x"] * 1000, delay_s=0.05)) as server:
        api = ChatApi(server=server.url)
        with api.stream(REQUEST) as stream:
            while not next(stream.chunks).text:
                pass

        assert server.requests[0].hung_up.wait(10)
        api.close()


def test_truncation_is_read_from_the_header() -> None:
    with scripted_openai(Script(headers={"x-context-truncated": "6"})) as server:
        assert _stream(server.url)[1] == 6


def test_a_refusal_is_read_from_the_choice() -> None:
    with scripted_openai(Script(x_refusal={"stage": "input", "category": "weapons"})) as server:
        chunks, _ = _stream(server.url)

    assert [chunk.refusal for chunk in chunks if chunk.refusal] == ["input/weapons"]


def test_models_come_in_the_servers_order_with_their_context() -> None:
    with scripted_openai() as server:
        api = ChatApi(server=server.url)
        assert api.models() == (ModelInfo(MODEL, CONTEXT_LENGTH), ModelInfo("scripted-2", CONTEXT_LENGTH))
        api.close()


def test_no_server_says_how_to_start_one() -> None:
    with pytest.raises(UnreachableError, match=r"no server at http://.*: start one with `make serve`"):
        _stream(unused_url())


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (Script(pieces=["a"], error={"message": "engine died"}), "the reply broke off: engine died"),
        (Script(pieces=["a"], error="boom\x1b[2J"), r"the reply broke off: boom␛\[2J"),
        (Script(pieces=["a"], dies=True), "the connection to the server broke"),
    ],
)
def test_a_reply_that_breaks_off_is_an_error(script: Script, message: str) -> None:
    with scripted_openai(script) as server, pytest.raises(BrokenReplyError, match=message):
        _stream(server.url)


def test_a_plain_text_error_page_is_explained() -> None:
    with scripted_openai(Script(status=502)) as server, pytest.raises(RejectedError, match="HTTP 502"):
        _stream(server.url)


@pytest.mark.parametrize(
    ("status", "error", "retry_after", "has_key", "expected"),
    [
        (401, None, None, False, "the server at S wants an API key: set TURNWISE_API_KEY or --api-key-file"),
        (
            401,
            None,
            None,
            True,
            "the server at S does not accept this API key: set TURNWISE_API_KEY or --api-key-file",
        ),
        (
            503,
            ErrorBody("Busy."),
            "3",
            False,
            "the server is overloaded or not ready (Busy): try again in 3 s",
        ),
        (
            429,
            ErrorBody("Slow down"),
            None,
            True,
            "this key has reached its limit (Slow down): try again in a moment",
        ),
        (404, ErrorBody("No m", "model_not_found"), None, False, "No m (/model lists what there is)"),
        (400, ErrorBody("2\nlines"), None, False, "the server answered: 2 lines"),
        (500, None, None, False, "the server at S answered HTTP 500 without an explanation"),
    ],
)
def test_a_rejection_becomes_one_clear_line(
    status: int, error: ErrorBody | None, retry_after: str | None, has_key: bool, expected: str
) -> None:
    line = explain_rejection(status=status, error=error, retry_after=retry_after, server="S", has_key=has_key)

    assert line == expected


@pytest.mark.parametrize(
    "text",
    ["", "not json", "[]", "null", "9" * 5000, "[" * 100_000, '{"choices": ["x"]}', '{"choices": [3]}'],
)
def test_a_chunk_of_the_wrong_shape_is_an_error_of_the_servers(text: str) -> None:
    with pytest.raises(ServerError):
        read_chunk(read_json(text))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"choices": []},
        {"choices": [{}]},
        {"choices": [{"delta": None, "finish_reason": 3, "x_refusal": "yes"}]},
        {
            "choices": [{"delta": {"content": ["x"]}}],
            "usage": {"prompt_tokens": -1, "completion_tokens": True},
        },
    ],
)
def test_missing_and_strange_fields_say_nothing(body: dict[str, object]) -> None:
    assert read_chunk(json.loads(json.dumps(body))) == Chunk()


def test_the_refusal_field_of_openai_is_shown_as_text() -> None:
    chunk = read_chunk({"choices": [{"delta": {"content": None, "refusal": "No."}}]})

    assert (chunk.text, chunk.refusal) == ("No.", "policy")


@pytest.mark.parametrize(
    ("extension", "retracts"),
    [({}, False), ({"x_moderation": {"retract": True}}, True), ({"x_moderation": {"retract": "yes"}}, False)],
)
def test_a_chunk_may_take_back_what_was_said_before(extension: dict[str, object], retracts: bool) -> None:
    chunk = read_chunk({"choices": [{"delta": {"refusal": "No."}, **extension}]})

    assert (chunk.text, chunk.retracts) == ("No.", retracts)


def test_errors_are_read_as_object_and_as_string() -> None:
    assert read_error({"error": {"message": "m", "code": "c"}}) == ErrorBody("m", "c")
    assert read_error({"error": "m"}) == ErrorBody("m")
    assert read_error({"error": {}}) == ErrorBody("no reason given")
    assert read_error({"error": None}) is None


def test_a_list_of_models_of_the_wrong_shape_is_an_error_of_the_servers() -> None:
    with pytest.raises(BrokenReplyError):
        read_models({"data": "none"})
