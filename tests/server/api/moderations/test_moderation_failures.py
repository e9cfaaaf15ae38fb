"""POST /v1/moderations when something does not work: a detector, the engine, the client, time, or a crowd."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from support.asgi_connection import AsgiConnection, until
from support.guarded_server import WordDetector, guarded_server
from turnwise_server.api.moderations.routes import TEXTS_AT_ONCE
from turnwise_server.chat.refusal.policy_file import DEFAULT_POLICY
from turnwise_server.moderation.detector import Sample, Scores

BODY = {"input": "bake"}


async def test_what_could_not_be_checked_is_no_result() -> None:
    async with guarded_server(detector=WordDetector("words", fails=True)) as server:
        reply = await server.client.post("/v1/moderations", json=BODY)
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "moderation_unavailable")
    assert reply.headers["retry-after"]


async def test_categories_that_fail_open_score_nothing_and_the_reply_says_so(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(DEFAULT_POLICY.read_text().replace("on_error: closed", "on_error: open"))
    async with guarded_server(policy=policy, detector=WordDetector("words", fails=True)) as server:
        reply = await server.client.post("/v1/moderations", json={"input": "zorb"})
    assert reply.headers["x-moderation"] == "skipped"
    (only,) = reply.json()["results"]
    assert not only["flagged"]
    assert only["category_applied_input_types"]["illicit/violent"] == []


async def test_texts_are_judged_while_the_engine_is_down() -> None:
    async with guarded_server() as server:
        await server.engine.close()
        assert (await server.chat()).status_code == 503
        assert (await server.client.post("/v1/moderations", json=BODY)).status_code == 200


async def test_a_client_that_leaves_stops_the_work() -> None:
    detector = WordDetector("words", delay_s=60)
    async with guarded_server(detector=detector) as server:
        connection = AsgiConnection(server.app, BODY, path="/v1/moderations")
        await until(lambda: detector.seen)
        connection.hang_up()
        async with asyncio.timeout(1):
            await connection.task
    assert connection.status == 499


async def test_a_server_that_must_stop_says_so() -> None:
    detector = WordDetector("words", delay_s=60)
    async with guarded_server(detector=detector) as server:
        connection = AsgiConnection(server.app, BODY, path="/v1/moderations")
        await until(lambda: detector.seen)
        server.services.lifecycle.aborted.set()
        async with asyncio.timeout(1):
            await connection.task
    assert connection.status == 503
    assert '"shutting_down"' in connection.text


async def test_an_answer_that_takes_too_long_is_an_error(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(DEFAULT_POLICY.read_text().replace("deadline_ms: 2000", "deadline_ms: 60000"))
    detector = WordDetector("words", delay_s=60)
    async with guarded_server(policy=policy, detector=detector, settings={"request_timeout_s": 1}) as server:
        reply = await server.client.post("/v1/moderations", json=BODY)
    assert (reply.status_code, reply.json()["error"]["code"]) == (504, "timeout")


@dataclass
class CrowdedDetector(WordDetector):
    """Knows how many texts it is asked about at a time."""

    now: int = 0
    most: int = 0
    firsts: list[str] = field(default_factory=list)
    """The first text of each time that it was asked."""

    async def score(self, samples: Sequence[Sample]) -> Sequence[Scores]:
        self.now += len(samples)
        self.most = max(self.most, self.now)
        self.firsts.append(samples[0].text)
        try:
            return await super().score(samples)
        finally:
            self.now -= len(samples)


async def test_requests_take_turns_so_that_few_texts_are_judged_at_a_time() -> None:
    detector = CrowdedDetector("words", delay_s=0.005)
    async with guarded_server(detector=detector) as server:
        replies = await asyncio.gather(
            *(
                server.client.post("/v1/moderations", json={"input": [name] * 3 * TEXTS_AT_ONCE})
                for name in ("bake", "cook")
            )
        )
    assert [len(reply.json()["results"]) for reply in replies] == [3 * TEXTS_AT_ONCE] * 2
    assert detector.most == TEXTS_AT_ONCE
    assert sorted(detector.firsts[:2]) == ["bake", "cook"]
