"""A day in operation: full queues, dead engines, deadlines, clients that leave or stall, shutting down."""

import asyncio
import json
from typing import Any

import pytest

from support.asgi_connection import AsgiConnection, until
from support.fake_server import HELLO, FakeServer, encode, fake_server
from turnwise_server.api.lifecycle import STALL_TIMEOUT_S, Lifecycle, StallDetector
from turnwise_server.api.sse import EventStream
from turnwise_server.app import create_app
from turnwise_server.engine.base import EngineStats

LONG = [encode("the quick brown fox " * 20)]
SLOW: dict[str, Any] = {"script": LONG, "token_delay_s": 0.01}


def connect(server: FakeServer, **body: Any) -> AsgiConnection:
    return AsgiConnection(create_app(server.services), {"model": "test", "messages": HELLO} | body)


def error_event(connection: AsgiConnection) -> dict[str, Any]:
    """The error that ends a stream; nothing may follow it."""
    assert "[DONE]" not in connection.text
    assert connection.is_complete
    last = connection.text.rstrip("\n").rpartition("\n\n")[2]
    error: dict[str, Any] = json.loads(last.removeprefix("data: "))["error"]
    assert list(error) == ["message", "type", "param", "code"]
    return error


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_hangs_up_frees_its_slot(stream: bool, log_lines: list[dict[str, Any]]) -> None:
    async with fake_server(**SLOW) as server:
        connection = connect(server, stream=stream, n=2)
        await until(lambda: server.engine.stats().generated_tokens > 4)
        connection.hang_up()
        await until(lambda: server.engine.running == 0, 1.0)
        await connection.task
        assert server.engine.cancelled == 2
    assert log_lines[-1]["status"] == 499
    assert log_lines[-1]["completion_tokens"] > 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_hangs_up_leaves_the_queue(stream: bool) -> None:
    async with fake_server(**SLOW, max_batch=1) as server:
        running = connect(server)
        await until(lambda: server.engine.running == 1)
        queued = connect(server, stream=stream)
        await until(lambda: server.engine.waiting == 1)
        queued.hang_up()
        await until(lambda: server.engine.waiting == 0, 1.0)
        assert server.engine.running == 1
        running.hang_up()
        await asyncio.gather(running.task, queued.task)


async def test_a_client_that_hangs_up_while_it_sends_is_logged_and_nothing_runs(
    log_lines: list[dict[str, Any]],
) -> None:
    async with fake_server() as server:
        connection = connect(server)
        connection._requests.get_nowait()
        connection._requests.put_nowait({"type": "http.request", "body": b"{", "more_body": True})
        connection.hang_up()
        await connection.task
        assert not server.engine.requests
    assert log_lines[-1]["status"] == 499


@pytest.mark.parametrize("stream", [False, True])
async def test_a_full_queue_is_refused_at_once_with_a_time_to_retry(stream: bool) -> None:
    async with fake_server(**SLOW, max_batch=1, max_queued_requests=1) as server:
        others = [connect(server), connect(server)]
        await until(lambda: (server.engine.running, server.engine.waiting) == (1, 1))
        reply = await server.chat(stream=stream)
        error = reply.json()["error"]
        assert (reply.status_code, error["type"]) == (503, "service_unavailable_error")
        assert error["code"] == "server_is_overloaded"
        assert 0 < int(reply.headers["retry-after"]) <= 120
        assert (await server.client.get("/health")).status_code == 200
        for other in others:
            other.hang_up()
            await other.task


async def test_a_stream_opens_before_its_first_token_and_pings_in_silence() -> None:
    async with fake_server(
        settings={"ping_interval_s": 0.02}, script=[encode("!")], prefill_delay_s=0.15
    ) as server:
        connection = connect(server, stream=True)
        await until(lambda: ": ping" in connection.text)
        assert '"role":"assistant"' in connection.text
        assert '"content":"!"' not in connection.text
        await connection.task
        frames = connection.text.split("\n\n")
    assert frames.count(": ping") >= 3
    assert frames[-2:] == ["data: [DONE]", ""]
    assert all(frame.startswith(("data: ", ": ping")) for frame in frames[:-1])


async def test_a_busy_stream_does_not_ping() -> None:
    """It runs for longer than the interval, but is never silent for as long."""
    script = [encode("the quick brown fox " * 30)]
    async with fake_server(script=script, token_delay_s=0.01, settings={"ping_interval_s": 1.5}) as server:
        reply = await server.chat(stream=True, max_tokens=200)
    assert reply.text.count("data: ") > 150
    assert ": ping" not in reply.text


async def test_a_client_that_stops_reading_is_cut_off() -> None:
    async with fake_server(**SLOW, settings={"send_timeout_s": 0.05, "ping_interval_s": 60}) as server:
        connection = connect(server, stream=True)
        await until(lambda: '"content":"t' in connection.text)
        connection.accepts.clear()
        await until(lambda: server.engine.running == 0, 1.0)
        await connection.task
        assert server.engine.cancelled == 1
    assert not connection.is_complete


async def test_a_client_that_stops_reading_in_silence_is_cut_off_at_the_next_ping() -> None:
    settings = {"send_timeout_s": 0.05, "ping_interval_s": 0.05}
    async with fake_server(script=LONG, prefill_delay_s=30, settings=settings) as server:
        connection = connect(server, stream=True)
        await until(lambda: '"role"' in connection.text)
        connection.accepts.clear()
        await until(lambda: server.engine.running == 0, 1.0)
        await connection.task


async def test_a_whole_reply_past_its_deadline_is_a_504() -> None:
    async with fake_server(**SLOW, settings={"request_timeout_s": 0.05}) as server:
        reply = await server.chat()
        await until(lambda: server.engine.running == 0)
    error = reply.json()["error"]
    assert (reply.status_code, error["type"], error["code"]) == (504, "server_error", "timeout")
    assert "0.05 seconds" in error["message"]


async def test_a_stream_past_its_deadline_ends_with_an_error_event() -> None:
    async with fake_server(**SLOW, settings={"request_timeout_s": 0.05}) as server:
        connection = connect(server, stream=True)
        await connection.task
        await until(lambda: server.engine.running == 0)
    error = error_event(connection)
    assert (error["type"], error["code"]) == ("server_error", "timeout")


async def test_an_error_before_the_first_frame_still_opens_the_stream() -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    stream = EventStream(send, {"x-test": "1"}, ping_interval_s=1, send_timeout_s=1)
    await stream.end(b"data: {}\n\n")
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert (b"x-test", b"1") in sent[0]["headers"]
    assert sent[1] == {"type": "http.response.body", "body": b"data: {}\n\n", "more_body": False}


async def test_a_dead_engine_breaks_running_replies_honestly(log_lines: list[dict[str, Any]]) -> None:
    async with fake_server(**SLOW) as server:
        streamed, whole, several = (
            connect(server, stream=True),
            connect(server),
            connect(server, stream=True, n=3),
        )
        await until(lambda: server.engine.stats().generated_tokens > 12)
        server.engine.die()
        await asyncio.gather(streamed.task, whole.task, several.task)
        assert error_event(streamed)["code"] == "engine_unavailable"
        assert error_event(several)["type"] == "server_error"
        assert whole.status == 503
        assert json.loads(whole.text)["error"]["type"] == "service_unavailable_error"
    assert [line["error"] for line in log_lines] == ["engine_unavailable"] * 3


async def test_with_a_dead_engine_nothing_is_ready_and_nothing_accepted() -> None:
    async with fake_server() as server:
        server.engine.die()
        reply, ready = await server.chat(stream=True), await server.client.get("/ready")
        assert (await server.client.get("/health")).status_code == 200
    for refused in (reply, ready):
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "engine_unavailable"
        assert refused.headers["retry-after"]


async def test_a_reply_that_ends_without_a_finish_reason_is_no_clean_end() -> None:
    async with fake_server(**SLOW) as server:
        streamed, whole = connect(server, stream=True), connect(server)
        await until(lambda: server.engine.stats().generated_tokens > 4)
        for generation in list(server.engine._running):
            generation.cancel()
        await asyncio.gather(streamed.task, whole.task)
    assert (error_event(streamed)["type"], error_event(streamed)["code"]) == (
        "server_error",
        None,
    )
    assert whole.status == 500


async def test_ready_tells_how_much_runs_and_waits() -> None:
    async with fake_server(**SLOW, max_batch=1) as server:
        connections = [connect(server), connect(server)]
        await until(lambda: (server.engine.running, server.engine.waiting) == (1, 1))
        ready = await server.client.get("/ready")
        assert ready.json() == {"status": "ready", "running": 1, "waiting": 1}
        for connection in connections:
            connection.hang_up()
            await connection.task


async def test_an_engine_that_is_stuck_is_not_ready() -> None:
    async with fake_server(script=LONG, prefill_delay_s=60) as server:
        connection = connect(server)
        await until(lambda: server.engine.running == 1)
        assert (await server.client.get("/ready")).status_code == 200
        server.engine.stall(STALL_TIMEOUT_S + 1)
        server.services.models.default.stall_detector._busy_since = -1e9
        ready = await server.client.get("/ready")
        assert (ready.status_code, ready.json()["error"]["code"]) == (503, "engine_stalled")
        connection.hang_up()
        await connection.task


def stats(*, running: int, since_step: float) -> EngineStats:
    return EngineStats(is_alive=True, running=running, waiting=0, seconds_since_step=since_step)


def test_a_long_idle_engine_that_gets_work_is_not_stuck() -> None:
    detector = StallDetector()
    assert not detector.is_stalled(stats(running=0, since_step=5000), now=0)
    assert not detector.is_stalled(stats(running=1, since_step=5010), now=10)
    assert not detector.is_stalled(stats(running=1, since_step=5060), now=60)
    assert detector.is_stalled(stats(running=1, since_step=5071), now=71)
    assert not detector.is_stalled(stats(running=1, since_step=0.1), now=72)
    assert not detector.is_stalled(stats(running=0, since_step=90), now=162)


async def test_draining_refuses_new_work_and_lets_running_replies_finish() -> None:
    async with fake_server(**SLOW) as server:
        running = connect(server, stream=True, max_tokens=20)
        await until(lambda: server.engine.running == 1)
        draining = asyncio.create_task(server.services.lifecycle.drain(10))
        await asyncio.sleep(0)
        refused, ready = await server.chat(), await server.client.get("/ready")
        for reply in (refused, ready):
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "shutting_down")
            assert reply.headers["retry-after"]
        assert (await server.client.get("/health")).status_code == 200
        await draining
        assert running.text.endswith("data: [DONE]\n\n")
        assert not server.services.lifecycle.aborted.is_set()


async def test_what_is_left_after_the_drain_is_ended_with_an_error() -> None:
    async with fake_server(**SLOW) as server:
        streamed, whole = connect(server, stream=True), connect(server)
        await until(lambda: server.engine.running == 2)
        await server.services.lifecycle.drain(0.05)
        await asyncio.gather(streamed.task, whole.task)
        assert error_event(streamed)["code"] == "shutting_down"
        assert (whole.status, json.loads(whole.text)["error"]["code"]) == (503, "shutting_down")
        await until(lambda: server.engine.running == 0)


async def test_a_drain_without_work_is_over_at_once() -> None:
    lifecycle = Lifecycle()
    async with asyncio.timeout(1):
        await lifecycle.drain(60)
    assert not lifecycle.aborted.is_set()


async def test_a_request_is_one_log_line_without_content(log_lines: list[dict[str, Any]]) -> None:
    async with fake_server("a canary reply") as server:
        await server.client.post(
            "/v1/chat/completions?token=canary",
            json={"model": "test", "messages": [{"role": "user", "content": "canary"}], "user": "canary"},
            headers={"x-request-id": "r1"},
        )
        await server.client.get("/canary?canary=1")
    assert len(log_lines) == 2
    line = log_lines[0]
    assert "canary" not in str(log_lines)
    assert line["duration_ms"] >= line["ttft_ms"] > 0
    expected = {
        "event": "request",
        "request_id": "r1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "model": "test",
        "stream": False,
        "finish_reason": "stop",
        "key_id": None,
        "cached_tokens": 0,
        "completion_tokens": len(encode("a canary reply")) + 1,
        "log_level": "info",
    }
    assert {key: line[key] for key in expected} == expected
    assert line["prompt_tokens"] > 0
    assert log_lines[1]["path"] == "(unknown)"
    assert log_lines[1]["error"] == "unknown_url"
