"""Responses in the background: they need no client, and always come to an end that is told and kept."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from support.asgi_connection import AsgiConnection, until
from support.fake_server import FakeServer, encode, fake_server
from support.responses import connect, events_of, respond, text_of, types_of
from turnwise_server.errors import StoreError
from turnwise_server.store.connect import open_database

TEXT = "the quick brown fox " * 4
SLOW: dict[str, Any] = {"script": [encode(TEXT)], "token_delay_s": 0.01}
ENDLESS: dict[str, Any] = {"script": [encode(TEXT * 50)], "token_delay_s": 0.01, "context_length": 4096}


async def begin(server: FakeServer, **body: Any) -> tuple[AsgiConnection, dict[str, Any]]:
    """Begin a background response; return its connection and the answer."""
    connection = connect(server, background=True, **body)
    await until(lambda: connection.text.endswith("}"))
    assert connection.status == 200, connection.text
    return connection, json.loads(connection.text)


async def begin_stream(server: FakeServer, **body: Any) -> tuple[AsgiConnection, dict[str, Any]]:
    """Begin one that streams; return its connection and the response of the first event."""
    connection = connect(server, background=True, stream=True, **body)
    await until(lambda: "response.created" in connection.text)
    return connection, events_of(connection.text.rpartition("\n\n")[0] + "\n\n")[0]["response"]


async def get(server: FakeServer, response: dict[str, Any], **query: Any) -> dict[str, Any]:
    reply = await server.client.get(f"/v1/responses/{response['id']}", params=query)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


@pytest.mark.parametrize("store", [None, True])
async def test_it_is_queued_at_once_then_runs_then_is_completed(store: bool | None) -> None:
    async with fake_server(**SLOW) as server:
        connection, queued = await begin(server, store=store)
        assert (queued["status"], queued["background"], queued["output"]) == ("queued", True, [])
        seen = set()
        while (now := await get(server, queued))["status"] != "completed":
            seen.add(now["status"])
            assert TEXT.startswith(text_of(now))
            await asyncio.sleep(0.02)
        await connection.task
        assert "in_progress" in seen
        assert text_of(now) == TEXT
        assert now["usage"]["output_tokens"] == len(encode(TEXT)) + 1
        whole = (await respond(server)).json()
        assert now["output"][0]["content"] == whole["output"][0]["content"]


async def test_it_goes_on_without_its_client_and_can_be_continued() -> None:
    async with fake_server(**SLOW) as server:
        connection, queued = await begin(server)
        connection.hang_up()
        refused = await respond(server, previous_response_id=queued["id"])
        assert refused.json()["error"]["param"] == "previous_response_id"
        await connection.task
        assert (await get(server, queued))["status"] == "completed"
        assert (await respond(server, previous_response_id=queued["id"])).status_code == 200
        prompt = server.engine.requests[-1].prompt_ids
        said = ["hello", TEXT, "hello"]
        roles = ["user", "assistant", "user"]
        await server.chat(
            messages=[{"role": role, "content": text} for role, text in zip(roles, said, strict=True)]
        )
        assert server.engine.requests[-1].prompt_ids == prompt


async def test_cancelling_frees_the_engine_and_is_final(log_lines: list[dict[str, Any]]) -> None:
    async with fake_server(**ENDLESS) as server:
        connection, queued = await begin(server)
        await until(lambda: server.engine.stats().generated_tokens > 4)
        path = f"/v1/responses/{queued['id']}/cancel"
        async with asyncio.timeout(1):
            cancelled = (await server.client.post(path)).json()
        assert (cancelled["status"], cancelled["usage"], cancelled["error"]) == ("cancelled", None, None)
        assert cancelled["output"][0]["status"] == "incomplete"
        assert server.engine.running == 0
        assert (await get(server, queued)) == cancelled
        assert (await server.client.post(path)).json() == cancelled, "once more changes nothing"
        await connection.task
    line = next(line for line in log_lines if line["event"] == "request" and line["path"] == "/v1/responses")
    assert (line["status"], line["completion_tokens"] > 0) == (200, True)


async def test_one_that_waits_in_the_queue_can_be_cancelled() -> None:
    async with fake_server(**ENDLESS, max_batch=1) as server:
        first, running = await begin(server)
        second, waiting = await begin(server)
        await until(lambda: server.engine.waiting == 1)
        assert (await get(server, waiting))["status"] == "queued"
        for response in (waiting, running):
            await server.client.post(f"/v1/responses/{response['id']}/cancel")
        assert server.engine.waiting == server.engine.running == 0
        await asyncio.gather(first.task, second.task)


async def test_deleting_stops_it() -> None:
    async with fake_server(**ENDLESS) as server:
        connection, queued = await begin(server)
        assert (await server.client.delete(f"/v1/responses/{queued['id']}")).status_code == 200
        assert (await server.client.get(f"/v1/responses/{queued['id']}")).status_code == 404
        await connection.task
        assert server.engine.running == 0


async def test_its_stream_begins_with_queued() -> None:
    async with fake_server(**SLOW) as server:
        connection, created = await begin_stream(server)
        await connection.task
        events = events_of(connection.text)
        assert created["status"] == "queued"
        assert types_of(events)[:4] == ["created", "queued", "in_progress", "output_item.added"]
        assert events[-1]["type"] == "response.completed"
        assert events[-1]["response"] == await get(server, created)


async def test_a_stream_that_was_left_can_be_taken_up_again() -> None:
    async with fake_server(**SLOW) as server:
        connection, created = await begin_stream(server)
        await until(lambda: connection.text.count("output_text.delta") > 8)
        connection.hang_up()
        await asyncio.sleep(0.05)
        assert not connection.task.done(), "the request stays with its reply"
        seen = events_of(connection.text.rpartition("\n\n")[0] + "\n\n")
        path = f"/v1/responses/{created['id']}"
        last = seen[-1]["sequence_number"]
        rest = await server.client.get(path, params={"stream": "true", "starting_after": last})
        again = await server.client.get(path, params={"stream": "true"})
        assert seen + events_of(rest.text) == events_of(again.text)
        assert events_of(again.text)[-1]["type"] == "response.completed"
        assert text_of(events_of(again.text)[-1]["response"]) == TEXT
        await connection.task


async def test_one_that_was_not_streamed_cannot_be_watched() -> None:
    async with fake_server(**SLOW) as server:
        connection, queued = await begin(server)
        reply = await server.client.get(f"/v1/responses/{queued['id']}", params={"stream": "true"})
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "stream")
        await connection.task


async def test_a_stream_of_one_that_is_cancelled_ends_without_looking_complete() -> None:
    async with fake_server(**ENDLESS) as server:
        connection, created = await begin_stream(server)
        await until(lambda: "output_text.delta" in connection.text)
        await server.client.post(f"/v1/responses/{created['id']}/cancel")
        await connection.task
        assert events_of(connection.text)[-1]["type"] == "response.cancelled"
        assert events_of(connection.text)[-1]["response"]["status"] == "cancelled"


async def test_the_deadline_holds_for_it() -> None:
    async with fake_server(**ENDLESS, settings={"request_timeout_s": 0.3}) as server:
        connection, queued = await begin(server)
        await connection.task
        failed = await get(server, queued)
    assert failed["status"] == "failed"
    assert failed["error"]["code"] == "server_error"
    assert "0.3 seconds" in failed["error"]["message"]


async def test_a_dead_engine_fails_it_and_says_so_twice_in_its_stream() -> None:
    """The first of the two events is what OpenAI documents, the second what makes SDKs raise."""
    async with fake_server(**ENDLESS) as server:
        connection, created = await begin_stream(server)
        await until(lambda: "output_text.delta" in connection.text)
        await server.engine.close()
        await connection.task
        failed, error = events_of(connection.text)[-2:]
        assert (failed["type"], error["type"]) == ("response.failed", "error")
        assert failed["response"] == await get(server, created)
        assert error["error"]["message"] == error["message"] == failed["response"]["error"]["message"]


async def test_it_counts_in_the_drain_and_fails_when_that_is_over() -> None:
    async with fake_server(**ENDLESS) as server:
        connection, queued = await begin(server, store=True)
        connection.hang_up()
        lifecycle = server.services.lifecycle
        assert lifecycle.requests == 1
        await lifecycle.drain(0.1)
        await connection.task
        assert lifecycle.requests == 0
        failed = await get(server, queued)
    assert (failed["status"], failed["error"]["message"]) == ("failed", "The server is shutting down.")


async def test_the_drain_lets_it_finish() -> None:
    async with fake_server(**SLOW) as server:
        connection, queued = await begin(server)
        await server.services.lifecycle.drain(5)
        assert (await get(server, queued))["status"] == "completed"
        await connection.task


async def test_one_that_lost_its_server_has_failed(tmp_path: Path) -> None:
    """What a killed server leaves unfinished is found so, and told so, by the next."""
    database = f"sqlite:///{tmp_path / 'server.db'}"
    async with fake_server(**ENDLESS, database=open_database(database)) as server:
        connection, queued = await begin(server, store=True)
        async with fake_server(database=open_database(database)) as successor:
            lost = await get(successor, queued)
            assert (lost["status"], lost["error"]["code"]) == ("failed", "server_error")
            assert await get(successor, queued) == lost
            again = await successor.client.post(f"/v1/responses/{queued['id']}/cancel")
            assert again.json() == lost
        await server.client.post(f"/v1/responses/{queued['id']}/cancel")
        await connection.task


async def test_a_full_queue_refuses_it_and_keeps_nothing() -> None:
    async with fake_server(**ENDLESS, max_batch=1, max_queued_requests=1) as server:
        connections = [await begin(server) for _ in range(2)]
        refused = connect(server, background=True)
        await refused.task
        assert (refused.status, json.loads(refused.text)["error"]["code"]) == (503, "server_is_overloaded")
        for connection, response in connections:
            await server.client.post(f"/v1/responses/{response['id']}/cancel")
            await connection.task


async def test_one_that_cannot_be_stored_at_first_leaves_nothing_running(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise StoreError("the disk is full")

    async with fake_server(**ENDLESS) as server:
        monkeypatch.setattr(server.services.storage.recent_responses, "save", fail)
        refused = connect(server, background=True)
        await refused.task
        assert refused.status == 503
        await until(lambda: server.engine.running == 0)


async def test_it_counts_among_the_requests_of_its_key_until_it_has_ended() -> None:
    async with fake_server(**ENDLESS, settings={"rate_limit_concurrent": 1}) as server:
        connection, queued = await begin(server)
        assert (await respond(server)).status_code == 429
        await server.client.post(f"/v1/responses/{queued['id']}/cancel")
        await connection.task
        assert (await respond(server, max_output_tokens=16)).status_code == 200


async def test_one_that_is_kept_in_memory_needs_no_database(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    broken = open_database(f"sqlite:///{tmp_path / 'file' / 'server.db'}")
    async with fake_server(database=broken) as server:
        connection, queued = await begin(server)
        await connection.task
        assert (await get(server, queued))["status"] == "completed"
        assert (await respond(server, previous_response_id=queued["id"])).status_code == 200
        assert (await server.client.delete(f"/v1/responses/{queued['id']}")).status_code == 200
