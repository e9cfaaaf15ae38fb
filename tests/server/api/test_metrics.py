"""/metrics: every figure is documented, right after a known series of requests, and free of what clients send."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from support.asgi_connection import AsgiConnection, until
from support.audits import decision
from support.fake_server import HELLO, FakeServer, encode, fake_server
from turnwise_server.api.supervision import Interruption
from turnwise_server.api.telemetry.metrics import Metrics
from turnwise_server.api.telemetry.request_facts import ReplyFacts, RequestFacts
from turnwise_server.app import create_app
from turnwise_server.auth import KeyRing, hash_key
from turnwise_server.engine.base import EngineStats
from turnwise_server.engine.timeline import Timeline
from turnwise_server.moderation.audit.record import OverrideUse
from turnwise_server.moderation.panel import Asked

DOCUMENT = (Path(__file__).parents[3] / "docs/operations.md").read_text(encoding="utf-8")
KEY = "tw-canary-0123456789abcdef"
LIMITED_KEY = "tw-limited-0123456789abcdef"
LONG = [encode("the quick brown fox " * 20)]

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parse(text: str) -> Samples:
    """Every sample by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(samples: Samples, name: str) -> dict[frozenset[tuple[str, str]], float]:
    return {labels: value for (found, labels), value in samples.items() if found == f"turnwise_{name}"}


async def scrape(server: FakeServer, **headers: str) -> Samples:
    reply = await server.client.get("/metrics", headers=headers)
    assert reply.status_code == 200
    return parse(reply.text)


def connect(server: FakeServer, **body: Any) -> AsgiConnection:
    return AsgiConnection(create_app(server.services), {"model": "test", "messages": HELLO} | body)


async def test_metrics_come_in_the_prometheus_text_format() -> None:
    async with fake_server() as server:
        reply = await server.client.get("/metrics")
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "# TYPE turnwise_requests_running gauge\n" in reply.text
    assert "_created" not in reply.text


async def test_every_metric_is_documented_as_it_is_and_no_other() -> None:
    async with fake_server() as server:
        metrics = server.services.metrics.safety
        metrics.refused(stage="input", category="violence")
        metrics.decided(replace(decision(), override=OverrideUse("safety:override", "a study")))
        metrics.detectors_asked([Asked("starter", None, 12.0, "deadline")])
        metrics.shadow_disagreed("guard")
        metrics.refusal_voted("down")
        await server.client.get("/nope")
        await server.chat()
        text = (await server.client.get("/metrics")).text
    documented = re.findall(r"^\| `(turnwise_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", DOCUMENT, re.MULTILINE)
    described = dict(re.findall(r"^# HELP (turnwise_\w+) (.*)$", text, re.MULTILINE))
    types = dict(re.findall(r"^# TYPE (turnwise_\w+) (\w+)$", text, re.MULTILINE))
    assert {name: (kind, meaning) for name, kind, _, meaning in documented} == {
        name: (types[name], described[name]) for name in described
    }
    assert len(documented) == len(described)
    samples = list(parse(text))
    for name, kind, labels, _ in documented:
        sample = f"{name}_count" if kind == "histogram" else name
        used = {frozenset(key for key, _ in found) for given, found in samples if given == sample}
        assert used == {frozenset(re.findall(r"`(\w+)`", labels))}, name


async def test_after_a_known_series_every_counter_has_its_value() -> None:
    ring = KeyRing([hash_key(KEY), hash_key(LIMITED_KEY, "rpm=1")])
    authorized = {"authorization": f"Bearer {KEY}"}
    limited = {"authorization": f"Bearer {LIMITED_KEY}"}
    async with fake_server("Hi!", keys=ring, headers=authorized) as server:
        await server.chat()
        await server.chat(stream=True)
        await server.chat(stream=True, n=2)
        await server.chat(max_tokens=2)
        await server.chat(temperature=7)
        await server.chat(model="invented-by-a-client")
        await server.client.post("/v1/chat/completions", content=b"{")
        await server.client.get("/v1/models/test")
        await server.client.get("/nope")
        await server.client.delete("/v1/models")
        await server.client.request("INVENTED", "/v1/models")
        await server.client.get("/health")
        await server.client.get("/v1/models/any", headers={"authorization": "Bearer wrong"})
        await server.client.get("/nope", headers={"authorization": "Bearer wrong"})
        body = {"model": "test", "messages": HELLO}
        for _ in range(3):
            await server.client.post("/v1/chat/completions", json=body, headers=limited)
        samples = await scrape(server)
    chat = {"endpoint": "/v1/chat/completions", "method": "POST", "model": "test"}
    assert requests_total(samples) == {
        row(chat, 200, "stop"): 2,
        row(chat, 200, "stop", stream=True): 2,
        row(chat, 200, "length"): 1,
        row(chat | {"model": ""}, 400): 2,
        row(chat | {"model": ""}, 404): 1,
        row(chat | {"model": ""}, 429): 2,
        row({"endpoint": "/v1/models/{model}"}, 200): 1,
        row({"endpoint": "(unknown)"}, 404): 1,
        row({"endpoint": "/v1/models", "method": "DELETE"}, 405): 1,
        row({"endpoint": "/v1/models", "method": "_OTHER"}, 405): 1,
        row({"endpoint": "/health"}, 200): 1,
        row({"endpoint": "/v1/models/{model}"}, 401): 1,
        row({"endpoint": "(unknown)"}, 401): 1,
    }
    assert reasons(samples, "rejected_total") == {
        "decimal_above_max_value": 1,
        "model_not_found": 1,
        "invalid_json": 1,
        "unknown_url": 1,
        "invalid_api_key": 2,
        "rate_limit_exceeded": 2,
        "other": 2,
    }
    tokens = len(encode("Hi!")) + 1
    prompt = samples["turnwise_prompt_tokens_total", frozenset({("model", "test")})] / 6
    assert single(samples, "generation_tokens_total") == 5 * tokens + 2
    assert single(samples, "prefix_cache_queries_total") == 6 * prompt
    assert single(samples, "prefix_cache_hits_total") == 0
    assert single(samples, "requests_running") == single(samples, "requests_waiting") == 0
    assert single(samples, "last_step_age_seconds") == 0
    assert single(samples, "engine_up") == 1
    for histogram, count in {
        "time_to_first_token_seconds": 5,
        "e2e_request_latency_seconds": 5,
        "request_queue_time_seconds": 5,
        "request_prefill_time_seconds": 5,
        "request_decode_time_seconds": 5,
        "request_prompt_tokens": 5,
        "request_generation_tokens": 5,
        "inter_token_latency_seconds": 5 * (tokens - 1) + 1,
    }.items():
        assert single(samples, f"{histogram}_count") == count, histogram
    assert single(samples, "request_prompt_tokens_sum") == 5 * prompt
    assert single(samples, "request_generation_tokens_sum") == 5 * tokens + 2


def row(
    labels: Mapping[str, str], status: int, finish_reason: str = "", *, stream: bool = False
) -> frozenset[tuple[str, str]]:
    given = {"method": "GET", "model": "", "status": str(status), "finish_reason": finish_reason}
    return frozenset((given | {"stream": str(stream).lower()} | dict(labels)).items())


def requests_total(samples: Samples) -> dict[frozenset[tuple[str, str]], float]:
    return of(samples, "requests_total")


def reasons(samples: Samples, name: str) -> dict[str, float]:
    return {dict(labels)["reason"]: value for labels, value in of(samples, name).items() if value}


def single(samples: Samples, name: str) -> float:
    """The one sample of the model."""
    (value,) = of(samples, name).values()
    return value


async def test_replies_that_are_cancelled_or_find_no_room_are_counted_by_reason() -> None:
    options: dict[str, Any] = {
        "script": LONG,
        "token_delay_s": 0.005,
        "max_batch": 1,
        "max_queued_requests": 1,
    }
    async with fake_server(**options, settings={"request_timeout_s": 5}) as server:
        running = connect(server, stream=True)
        await until(lambda: server.engine.stats().generated_tokens > 3)
        queued = connect(server)
        await until(lambda: server.engine.waiting == 1)
        assert (await server.chat()).status_code == 503
        samples = await scrape(server)
        assert (single(samples, "requests_running"), single(samples, "requests_waiting")) == (1, 1)
        assert single(samples, "last_step_age_seconds") < 5
        for connection in (queued, running):
            connection.hang_up()
            await connection.task
        ends = connect(server, stream=True)
        await until(lambda: server.engine.running == 1)
        await server.services.lifecycle.drain(0)
        await ends.task
        assert (await server.chat()).status_code == 503
        assert (await server.client.get("/ready")).status_code == 503
        samples = await scrape(server)
    assert reasons(samples, "cancelled_total") == {"client_gone": 2, "shutdown": 1}
    assert reasons(samples, "rejected_total") == {"server_is_overloaded": 1, "shutting_down": 1}
    chat = {"endpoint": "/v1/chat/completions", "method": "POST", "model": "test"}
    counted = requests_total(samples)
    assert counted[row(chat, 499, "incomplete")] == 1
    assert counted[row(chat, 499, "incomplete", stream=True)] == 1
    assert counted[row(chat, 200, "incomplete", stream=True)] == 1
    assert single(samples, "request_queue_time_seconds_count") == 2, "one left while it waited"
    assert "turnwise_e2e_request_latency_seconds_count" not in {name for name, _ in samples}


async def test_a_dead_engine_is_down_and_what_it_broke_is_counted() -> None:
    async with fake_server(script=LONG, token_delay_s=0.005) as server:
        broken = connect(server, stream=True)
        await until(lambda: server.engine.stats().generated_tokens > 3)
        server.engine.die()
        await broken.task
        assert (await server.chat()).status_code == 503
        samples = await scrape(server)
    assert single(samples, "engine_up") == 0
    assert reasons(samples, "rejected_total") == {"engine_unavailable": 1}
    assert reasons(samples, "cancelled_total") == {}


def test_the_engines_figures_are_shown_by_model() -> None:
    engines = {
        "a": EngineStats(True, 2, 3, 4.0, 5, 6, 7, 0.5, 1),
        'b"\n': EngineStats(False, 0, 0, 99.0),
    }
    samples = parse(Metrics().exposition(engines).decode())
    expected = {
        "requests_running": (2, 0),
        "requests_waiting": (3, 0),
        "last_step_age_seconds": (4, 0),
        "prefix_cache_hits_total": (5, 0),
        "prompt_tokens_total": (6, 0),
        "generation_tokens_total": (7, 0),
        "kv_cache_usage_ratio": (0.5, 0),
        "engine_restarts_total": (1, 0),
        "engine_up": (1, 0),
    }
    for name, values in expected.items():
        assert of(samples, name) == {
            frozenset({("model", model)}): value for model, value in zip(engines, values, strict=True)
        }


def timeline(queued: float, started: float | None, *tokens: float) -> Timeline:
    line = Timeline(queued, started)
    line._tokens.extend(tokens)
    return line


def facts(*timelines: Timeline, finish_reasons: tuple[str, ...] = ()) -> ReplyFacts:
    return ReplyFacts("id", "m", len(timelines), 9, 1.0, 1.0, 10, 5, 0, finish_reasons, timelines)


def test_the_phases_of_a_reply_are_those_of_its_choices_together() -> None:
    metrics = Metrics()
    choices = timeline(1.0, 2.0, 3.0, 3.5, 4.5), timeline(1.0, 2.5, 5.0, 6.0)
    metrics.reply_ended(facts(*choices, finish_reasons=("stop", "length")), arrived=0.5, ended=7.0)
    samples = parse(metrics.exposition({}).decode())
    sums = {
        "time_to_first_token_seconds": 2.5,
        "e2e_request_latency_seconds": 6.5,
        "request_queue_time_seconds": 1.0,
        "request_prefill_time_seconds": 1.0,
        "request_decode_time_seconds": 3.0,
        "inter_token_latency_seconds": 2.5,
        "request_prompt_tokens": 10,
        "request_generation_tokens": 5,
    }
    for name, value in sums.items():
        assert single(samples, f"{name}_sum") == value, name
    buckets = {
        dict(labels)["le"]: count
        for labels, count in of(samples, "inter_token_latency_seconds_bucket").items()
    }
    assert (buckets["0.25"], buckets["0.5"], buckets["1.0"], buckets["+Inf"]) == (0, 1, 3, 3)


def test_a_reply_that_got_no_further_than_the_queue_measures_nothing() -> None:
    metrics = Metrics()
    metrics.reply_ended(facts(timeline(1.0, None)), arrived=0.0, ended=9.0)
    metrics.reply_cancelled(Interruption.DEADLINE)
    samples = parse(metrics.exposition({}).decode())
    assert not [name for name, _ in samples if name.endswith("_seconds_count")]
    assert reasons(samples, "cancelled_total") == {"deadline": 1}


def test_no_label_takes_what_a_client_makes_up() -> None:
    metrics = Metrics()
    metrics.request_ended(RequestFacts("canary", "GET", "/v1/models", 418, error="canary"))
    assert "canary" not in metrics.exposition({}).decode().lower()


async def test_many_scrapes_during_replies_disturb_nothing() -> None:
    async with fake_server(script=LONG, token_delay_s=0.001) as server:
        connections = [connect(server, stream=True) for _ in range(4)]
        await until(lambda: server.engine.running == 4)
        await asyncio.gather(*(scrape(server) for _ in range(20)))
        await asyncio.gather(*(connection.task for connection in connections))
        assert all(connection.text.endswith("data: [DONE]\n\n") for connection in connections)
