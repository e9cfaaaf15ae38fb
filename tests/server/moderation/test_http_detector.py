"""The HTTP detector against real servers: what it sends, what it believes, and every way in which it can fail."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from turnwise_server.chat.refusal.policy_stages import Detector as DetectorRule
from turnwise_server.chat.refusal.policy_types import OPENAI_CATEGORIES
from turnwise_server.errors import ConfigurationError
from turnwise_server.moderation.detector import Detector, DetectorError, Sample
from turnwise_server.moderation.http_detector import (
    MAX_ANSWER_BYTES,
    HttpDetector,
    load_http_detector,
    read_answer,
)

SECRET_TEXT = "the text of somebody"
KEY = "sk-nobody-sees-this"

Reply = tuple[int, dict[str, str], bytes]


def scores(**changed: object) -> dict[str, Any]:
    return dict.fromkeys(OPENAI_CATEGORIES, 0.25) | changed


def answer(*results: dict[str, Any]) -> bytes:
    return json.dumps({"id": "modr-1", "results": [{"category_scores": each} for each in results]}).encode()


@dataclass
class Moderator:
    """A server in this event loop: what it answers, and what it saw."""

    reply: Callable[[Any], Reply]
    port: int = 0
    hangs: bool = False
    bodies: list[Any] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        self.bodies.append(json.loads(body))
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        self.paths.append(scope["path"])
        if self.hangs:
            await receive()  # until the client leaves
            return
        status, headers, content = self.reply(self.bodies[-1])
        lines = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": lines})
        await send({"type": "http.response.body", "body": content})


def all_alike(body: Any) -> Reply:
    return 200, {}, answer(*[scores()] * len(body["input"]))


@asynccontextmanager
async def moderator(
    reply: Callable[[Any], Reply] = all_alike, *, hangs: bool = False
) -> AsyncIterator[Moderator]:
    app = Moderator(reply, hangs=hangs)
    listener = socket.create_server(("127.0.0.1", 0))
    app.port = listener.getsockname()[1]
    config = uvicorn.Config(app, lifespan="off", log_level="critical", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve([listener]))
    try:
        yield app
    finally:
        server.should_exit = True
        await serving
        listener.close()


@asynccontextmanager
async def detector_at(url: str, **options: Any) -> AsyncIterator[Detector]:
    detector = HttpDetector("remote", url=url, **({"timeout_s": 5.0} | options))
    try:
        yield detector
    finally:
        await detector.close()


async def failure(detector: Detector, samples: Sequence[Sample] = (Sample(SECRET_TEXT),)) -> str:
    with pytest.raises(DetectorError) as caught:
        await detector.score(samples)
    message = f"{caught.value} {caught.value.__cause__}"
    assert SECRET_TEXT not in message
    assert KEY not in message
    return str(caught.value)


async def test_all_samples_go_in_one_request_and_the_scores_come_back_in_their_order() -> None:
    def by_length(body: Any) -> Reply:
        return 200, {}, answer(*(scores(hate=len(text) / 10) for text in body["input"]))

    samples = [Sample("a"), Sample("bbb", "output", "asked?"), Sample("naïve 🎉 \ud800")]
    async with (
        moderator(by_length) as server,
        detector_at(f"{server.url}/", model="big", api_key=KEY) as detector,
    ):
        found = await detector.score(samples)
    assert [each["hate"] for each in found] == [0.1, 0.3, 0.9]
    assert [set(each) for each in found] == [set(OPENAI_CATEGORIES)] * 3
    assert server.paths == ["/v1/moderations"]
    assert server.bodies == [{"input": ["a", "bbb", "naïve 🎉 \ud800"], "model": "big"}]
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


async def test_neither_key_nor_model_is_sent_where_the_policy_names_none() -> None:
    async with moderator() as server, detector_at(server.url) as detector:
        await detector.score([Sample("a")])
    assert server.bodies == [{"input": ["a"]}]
    assert "authorization" not in server.headers[0]


async def test_what_the_panel_asks_of_a_detector() -> None:
    async with detector_at("http://127.0.0.1:9/v1") as detector:
        assert (detector.id, detector.sha256) == ("remote", None)
        assert detector.labels == set(OPENAI_CATEGORIES)
        assert detector.thresholds == {}


@pytest.mark.parametrize("status", [201, 301, 302, 307, 400, 401, 404, 429, 500, 503])
async def test_any_status_but_200_is_a_failure_and_is_not_tried_again(status: int) -> None:
    def refuse(body: Any) -> Reply:
        return status, {"location": "/v1/elsewhere"}, json.dumps({"error": body}).encode()

    async with moderator(refuse) as server, detector_at(server.url, api_key=KEY) as detector:
        assert f"status {status}" in await failure(detector)
    assert server.paths == ["/v1/moderations"]


async def test_a_server_that_is_not_there_is_a_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with detector_at(f"http://127.0.0.1:{port}/v1") as detector:
        assert "ConnectError" in await failure(detector)


async def test_a_server_that_says_nothing_in_time_is_a_failure() -> None:
    async with moderator(hangs=True) as server, detector_at(server.url, timeout_s=0.1) as detector:
        assert "too long" in await failure(detector)
    assert len(server.bodies) == 1


async def test_a_caller_that_is_cancelled_leaves_the_server() -> None:
    async with moderator(hangs=True) as server, detector_at(server.url) as detector:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await detector.score([Sample("a")])
        server.hangs = False
        assert len(await detector.score([Sample("a")])) == 1


async def test_an_answer_without_end_is_given_up() -> None:
    endless: Reply = (200, {}, b" " * (MAX_ANSWER_BYTES + 1))
    async with moderator(lambda _: endless) as server, detector_at(server.url) as detector:
        assert "longer than" in await failure(detector)


async def test_a_compressed_answer_nobody_asked_for_is_not_unpacked() -> None:
    packed: Reply = (200, {"content-encoding": "gzip"}, b"\x1f\x8b\x08")
    async with moderator(lambda _: packed) as server, detector_at(server.url) as detector:
        assert "not JSON" in await failure(detector)


@asynccontextmanager
async def raw_server(
    talk: Callable[[int, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[tuple[str, list[int]]]:
    """Serve connections by hand; `talk` gets their numbers from 0 on."""
    connections: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(len(connections))
        await talk(connections[-1], reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", connections


async def read_request(reader: asyncio.StreamReader) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))


def http_ok(content: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(content), content)


async def test_a_connection_that_died_is_replaced_once() -> None:
    async def talk(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        if number == 1:
            writer.write(http_ok(answer(scores())))

    async with raw_server(talk) as (url, connections), detector_at(url) as detector:
        assert len(await detector.score([Sample("a")])) == 1
    assert connections == [0, 1]


async def test_a_server_that_only_hangs_up_is_asked_twice_and_no_more() -> None:
    async def talk(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)

    async with raw_server(talk) as (url, connections), detector_at(url) as detector:
        assert "RemoteProtocolError" in await failure(detector)
    assert connections == [0, 1]


async def test_what_is_no_http_is_a_failure() -> None:
    async def talk(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"220 mail.example.com ESMTP\r\n")

    async with raw_server(talk) as (url, _), detector_at(url) as detector:
        assert "cannot be asked" in await failure(detector)


async def test_a_closed_detector_says_so() -> None:
    async with moderator() as server:
        detector = HttpDetector("remote", url=server.url, timeout_s=5)
        await detector.score([Sample("a")])
        await detector.close()
        await detector.close()
        assert await failure(detector) == "remote is closed"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (answer(scores(hate=float("nan"))), "not JSON"),
        (answer(scores(hate=float("inf"))), "not JSON"),
        (b"[]", "list of 1 'results'"),
        (b'{"results": {}}', "list of 1 'results'"),
        (answer(), "list of 1 'results'"),
        (answer(scores(), scores()), "list of 1 'results'"),
        (b'{"results": [null]}', "'category_scores'"),
        (b'{"results": [{"category_scores": []}]}', "'category_scores'"),
        (answer({}), "'harassment'"),
        (answer(scores(hate=None)), "'hate'"),
        (answer(scores(hate=True)), "'hate'"),
        (answer(scores(hate="0.1")), "'hate'"),
        (answer(scores(hate=-0.001)), "'hate'"),
        (answer(scores(hate=1.001)), "'hate'"),
        (answer(scores(hate=10**400)), "'hate'"),
    ],
)
def test_an_answer_that_cannot_be_read_is_a_failure(content: bytes, reason: str) -> None:
    with pytest.raises(DetectorError, match=reason):
        read_answer(content, 1)


def test_names_that_openai_does_not_have_are_passed_over() -> None:
    (found,) = read_answer(answer(scores(spam=7, hate=1)), 1)
    assert found == scores(hate=1.0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["results", "category_scores", *OPENAI_CATEGORIES]), inner, max_size=3
        )
    ),
)
RESULT = st.fixed_dictionaries(dict.fromkeys(OPENAI_CATEGORIES, st.floats(-0.1, 1.1) | st.integers(0, 1)))


@given(st.binary(max_size=50) | JSON.map(lambda value: json.dumps(value).encode()), st.integers(1, 3))
def test_whatever_comes_is_read_or_refused_and_never_crashes(content: bytes, count: int) -> None:
    try:
        found = read_answer(content, count)
    except DetectorError:
        return
    assert len(found) == count


@given(st.lists(RESULT, max_size=4), st.integers(0, 4))
def test_scores_are_believed_exactly_if_there_are_as_many_as_asked_for_and_all_lie_between_0_and_1(
    results: list[dict[str, float]], count: int
) -> None:
    is_right = len(results) == count and all(0 <= score <= 1 for each in results for score in each.values())
    if is_right:
        assert read_answer(answer(*results), count) == results
    else:
        with pytest.raises(DetectorError):
            read_answer(answer(*results), count)


def rule(**keys: Any) -> DetectorRule:
    return DetectorRule(id="remote", kind="http", url="http://127.0.0.1:9000/v1", **keys)


async def test_the_key_is_read_from_the_environment_when_the_policy_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GUARD_KEY", KEY)
    async with moderator() as server:
        detector = load_http_detector(
            rule(api_key_env="GUARD_KEY", model="m").model_copy(update={"url": server.url})
        )
        monkeypatch.delenv("GUARD_KEY")
        await detector.score([Sample("a")])
        await detector.close()
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert server.bodies[0]["model"] == "m"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "GUARD_KEY is not set"),
        ("", "GUARD_KEY is not set"),
        ("sk-1\n", "character"),
        ("sk-é", "character"),
        ("sk 1", "character"),
    ],
)
def test_a_key_that_is_missing_or_none_is_told_when_the_policy_is_loaded(
    monkeypatch: pytest.MonkeyPatch, value: str | None, reason: str
) -> None:
    monkeypatch.delenv("GUARD_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("GUARD_KEY", value)
    with pytest.raises(ConfigurationError, match=reason) as caught:
        load_http_detector(rule(api_key_env="GUARD_KEY"))
    assert "api_key_env" in str(caught.value)
    assert not value or value not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://guard:port/v1",
        "http:///v1",
        "http://127.0.0.1:70000/v1",
        "http://guard/v1?x=1",
        "http://guard/v1#x",
    ],
)
def test_an_address_that_no_request_could_go_to_is_told_when_the_policy_is_loaded(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"url: .* is no base address"):
        load_http_detector(rule().model_copy(update={"url": url}))
