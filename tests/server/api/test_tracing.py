"""Spans reach a collector, hold figures and no content, and a collector that is away harms nobody."""

import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from support.asgi_connection import AsgiConnection, until
from support.fake_model import write_fake_model
from support.fake_server import HELLO, FakeServer, encode, fake_server
from support.live_server import LiveServer, live_server, wait_until
from support.otlp_receiver import OtlpReceiver, ReceivedSpan, otlp_receiver
from turnwise_server.api.telemetry.otlp import CLOSE_TIMEOUT_S, OtlpTracer
from turnwise_server.api.telemetry.tracing import UnwrittenTracer, make_tracer
from turnwise_server.app import create_app
from turnwise_server.auth import KeyRing, hash_key
from turnwise_server.errors import ConfigurationError

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
KEY = "tw-canary-0123456789abcdef"


@asynccontextmanager
async def traced_server(endpoint: str, **options: Any) -> AsyncIterator[FakeServer]:
    """A server whose spans have been sent, or given up, at the end."""
    tracer = OtlpTracer(endpoint)
    ring = KeyRing([hash_key(KEY)])
    async with fake_server("a canary reply", **options) as server:
        services = replace(server.services, tracer=tracer)
        app = create_app(services, ring)
        transport = httpx2.ASGITransport(app=app)
        headers = {"authorization": f"Bearer {KEY}"}
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://127.0.0.1:8000", headers=headers
        ) as client:
            yield FakeServer(client, server.engine, services, app)
    await tracer.close()


def children(receiver: OtlpReceiver, parent: ReceivedSpan) -> list[ReceivedSpan]:
    found = [span for span in receiver.spans if span.parent_id == parent.span_id]
    assert all((span.trace_id, span.kind) == (parent.trace_id, "SPAN_KIND_INTERNAL") for span in found)
    return sorted(found, key=lambda span: span.start_ns)


async def test_a_reply_is_one_span_with_its_phases_and_figures() -> None:
    with otlp_receiver() as receiver:
        async with traced_server(receiver.url, prefill_delay_s=0.02, token_delay_s=0.001) as server:
            began = time.time_ns()
            traceparent = {"traceparent": f"00-{TRACE}-{SPAN}-01", "x-request-id": "r1"}
            reply = await server.client.post(
                "/v1/chat/completions",
                json={"model": "test", "messages": HELLO, "temperature": 0.5, "n": 2, "max_tokens": 100},
                headers=traceparent,
            )
            ended = time.time_ns()
        (span,) = receiver.server_spans()
    usage = reply.json()["usage"]
    assert (span.name, span.trace_id, span.parent_id) == ("POST /v1/chat/completions", TRACE, SPAN)
    assert reply.headers["traceparent"] == f"00-{TRACE}-{span.span_id}-01"
    assert not span.is_error
    assert span.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "turnwise.request_id": "r1",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "turnwise",
        "gen_ai.request.model": "test",
        "gen_ai.request.stream": False,
        "gen_ai.request.max_tokens": 100,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.request.choice.count": 2,
        "gen_ai.response.id": reply.json()["id"],
        "gen_ai.response.model": "test",
        "gen_ai.response.finish_reasons": ["stop", "stop"],
        "gen_ai.usage.input_tokens": usage["prompt_tokens"],
        "gen_ai.usage.cache_read.input_tokens": 0,
        "gen_ai.usage.output_tokens": usage["completion_tokens"],
    }
    queue, prefill, decode = children(receiver, span)
    assert [queue.name, prefill.name, decode.name] == ["queue", "prefill", "decode"]
    moments = [span.start_ns, queue.start_ns, prefill.start_ns, decode.start_ns, decode.end_ns, span.end_ns]
    assert [began, *moments, ended] == sorted([began, *moments, ended])
    assert prefill.end_ns - prefill.start_ns >= 20e6
    assert (queue.end_ns, prefill.end_ns) == (prefill.start_ns, decode.start_ns)
    assert receiver.paths == {"/v1/traces"}
    assert receiver.resources[0]["service.name"] == "turnwise"


async def test_refusals_and_cancelled_replies_are_spans_too_and_probes_are_none() -> None:
    with otlp_receiver() as receiver:
        script = [encode("the quick brown fox " * 20)]
        async with traced_server(receiver.url, script=script, token_delay_s=0.005, max_batch=1) as server:
            for path in ("/health", "/ready", "/metrics"):
                assert (await server.client.get(path)).headers["traceparent"]
            await server.client.get("/canary")
            await server.chat(model="canary")
            app = create_app(server.services)
            body = {"model": "test", "messages": HELLO, "stream": True}
            running = AsgiConnection(app, body)
            await until(lambda: server.engine.stats().generated_tokens > 3)
            queued = AsgiConnection(app, body)
            await until(lambda: server.engine.waiting == 1)
            queued.hang_up()
            await queued.task
            server.engine.die()
            await running.task
        unknown, refused, left, broken = receiver.server_spans()
    assert (unknown.name, unknown.attributes["error.type"]) == ("GET (unknown)", "unknown_url")
    assert (refused.attributes["error.type"], refused.is_error) == ("model_not_found", False)
    assert left.attributes["http.response.status_code"] == 499
    assert left.attributes["error.type"] == "client_gone"
    assert [child.name for child in children(receiver, left)] == ["queue"]
    assert broken.attributes["error.type"] == "engine_unavailable"
    assert broken.is_error
    assert [child.name for child in children(receiver, broken)] == ["queue", "prefill", "decode"]


async def test_no_key_and_no_content_is_in_spans() -> None:
    with otlp_receiver() as receiver:
        async with traced_server(receiver.url) as server:
            canary = [{"role": "user", "content": "canary"}]
            headers = {"tracestate": "vendor=canary", "user-agent": "canary"}
            for body in ({"messages": canary}, {"messages": canary, "stop": "canary"}, {"model": "canary"}):
                request = {"model": "test", "messages": HELLO} | body
                await server.client.post("/v1/chat/completions?q=canary", json=request, headers=headers)
            await server.client.get("/canary")
        assert len(receiver.server_spans()) == 4
    sent = b"".join(receiver.bodies)
    assert b"canary" not in sent
    assert hash_key(KEY).digest.encode() not in sent


async def test_what_the_caller_does_not_sample_is_not_sent() -> None:
    with otlp_receiver() as receiver:
        async with traced_server(receiver.url) as server:
            reply = await server.client.get("/v1/models", headers={"traceparent": f"00-{TRACE}-{SPAN}-00"})
            assert reply.headers["traceparent"].startswith(f"00-{TRACE}-")
            assert reply.headers["traceparent"].endswith("-00")
        assert not receiver.spans


async def test_a_collector_that_is_away_harms_no_request_and_not_the_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with traced_server(f"http://127.0.0.1:{silent.getsockname()[1]}") as server:
            for _ in range(50):
                began = time.perf_counter()
                assert (await server.chat()).status_code == 200
                assert time.perf_counter() - began < 1
            leaving = time.perf_counter()
        assert time.perf_counter() - leaving < CLOSE_TIMEOUT_S + 2


def traces_of_chats(server: LiveServer) -> list[str]:
    return [line["trace_id"] for line in server.log_lines() if line.get("path") == "/v1/chat/completions"]


def test_a_running_server_sends_its_spans(tmp_path: Path) -> None:
    model = write_fake_model(tmp_path / "model")
    with otlp_receiver() as receiver:
        env = {"OTEL_SERVICE_NAME": "chat", "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}
        with live_server(model, "--engine", "fake", env=env) as server:
            reply = server.chat(stream=True)
            wait_until(lambda: bool(traces_of_chats(server)), 5)
            logged = traces_of_chats(server)
        (span,) = receiver.server_spans()
        assert receiver.resources[0]["service.name"] == "chat"
    assert [span.trace_id] == logged == [reply.headers["traceparent"].split("-")[1]]
    assert len(children(receiver, span)) == 3


def test_a_running_server_ends_in_time_though_its_collector_is_away(tmp_path: Path) -> None:
    model = write_fake_model(tmp_path / "model")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with live_server(model, "--engine", "fake", "--otlp-endpoint", endpoint) as server:
            assert server.chat().status_code == 200
            server.process.terminate()
            assert server.process.wait(25) == 0, "the SDK alone would have waited for 30 seconds"


@pytest.mark.parametrize(
    ("endpoint", "environment", "asked_by"),
    [
        ("http://127.0.0.1:4318", {}, "--otlp-endpoint"),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
    ],
)
def test_without_the_extra_traces_are_refused_with_the_remedy(
    endpoint: str | None, environment: dict[str, str], asked_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "turnwise_server.api.telemetry.otlp")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigurationError, match=r'pip install "turnwise\[tracing\]"') as refused:
        make_tracer(endpoint, environment)
    assert asked_by in str(refused.value)


def test_a_protocol_that_is_not_spoken_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'"):
        make_tracer("http://127.0.0.1:4317", {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})


@pytest.mark.parametrize(
    ("endpoint", "environment"),
    [
        (None, {}),
        (None, {"OTEL_SERVICE_NAME": "chat", "OTEL_EXPORTER_OTLP_ENDPOINT": ""}),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"}),
        ("http://127.0.0.1:1", {"OTEL_SDK_DISABLED": "true"}),
    ],
)
def test_spans_are_written_only_where_somebody_wants_them(
    endpoint: str | None, environment: dict[str, str]
) -> None:
    assert isinstance(make_tracer(endpoint, environment), UnwrittenTracer)
