"""The server on real sockets in a process of its own, with the fake engine: what in-process tests cannot see."""

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from support.fake_model import write_fake_model
from support.fake_server import HELLO
from support.live_fake_server import fake_live_server, posted, read_until, ready, wait_for
from support.live_server import LiveServer, live_server, wait_until

CONTEXT = 200_000
FAST_BODY = {"model": "test", "messages": HELLO, "max_tokens": 50}
LONG_BODY = {"model": "test", "messages": HELLO, "max_tokens": CONTEXT}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fake_model(tmp_path_factory.mktemp("model"), context_length=CONTEXT)


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[LiveServer]:
    """A quick engine; pings every 0.2 s; a client may stall for one second."""
    flags = ("--ping-interval-s", "0.2", "--send-timeout-s", "1", "--max-batch", "2")
    with fake_live_server(model, *flags, token_delay_ms=2) as running:
        yield running


def test_a_client_that_stops_reading_loses_its_slot(server: LiveServer) -> None:
    with posted(
        server,
        LONG_BODY | {"stream": True, "n": 2, "logprobs": True, "top_logprobs": 20},
        receive_buffer=4096,
    ):
        wait_for(server, running=2)
        wait_for(server, 60, running=0)
        wait_until(lambda: any(line.get("error") == "client_too_slow" for line in server.log_lines()), 5)


def test_a_stream_ends_at_once_after_done(server: LiveServer) -> None:
    with posted(server, FAST_BODY | {"stream": True}) as connection:
        data = read_until(connection, b"data: [DONE]\n\n")
        assert data.startswith(b"HTTP/1.1 200 OK\r\n")
        connection.settimeout(2)
        rest = data.partition(b"data: [DONE]\n\n")[2]
        while not rest.endswith(b"0\r\n\r\n"):
            rest += connection.recv(100)


def test_the_connection_serves_the_next_request(server: LiveServer) -> None:
    with httpx2.Client(base_url=server.url) as client:
        for stream in (True, False, True):
            reply = client.post("/v1/chat/completions", json=FAST_BODY | {"stream": stream})
            assert reply.status_code == 200


def test_a_gigabyte_is_refused_before_it_is_sent(server: LiveServer) -> None:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=5)
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1000000000\r\n\r\n"
    connection.sendall(head.encode())
    reply = read_until(connection, b"request_too_large")
    assert reply.startswith(b"HTTP/1.1 413 ")
    connection.close()


def test_a_client_that_sends_too_much_anyway_gets_to_read_why(server: LiveServer) -> None:
    reply = httpx2.post(f"{server.url}/v1/chat/completions", content=b" " * 30_000_000, timeout=30)
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "request_too_large")


def test_an_endless_chunked_body_is_cut(server: LiveServer) -> None:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=5)
    connection.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    for _ in range(80):
        connection.sendall(chunk)
    assert read_until(connection, b"request_too_large").startswith(b"HTTP/1.1 413 ")
    connection.close()


def test_malformed_http_does_not_disturb_the_server(server: LiveServer) -> None:
    for junk in (
        b"\x16\x03\x01\x02\x00",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        b"\0" * 9000,
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
            connection.sendall(junk)
    assert server.chat().status_code == 200


def test_the_log_is_json_without_content(server: LiveServer) -> None:
    server.chat(messages=[{"role": "user", "content": "canary"}], user="canary")
    text = server.log.read_text()
    assert "canary" not in text
    for line in text.splitlines():
        assert json.loads(line)["event"]


def stream_lines(server: LiveServer, **body: Any) -> Iterator[str]:
    with httpx2.stream(
        "POST", f"{server.url}/v1/chat/completions", json=LONG_BODY | {"stream": True} | body, timeout=30
    ) as reply:
        yield from reply.iter_lines()


def test_sigterm_lets_replies_finish_refuses_new_ones_and_exits_with_0(model: Path) -> None:
    with fake_live_server(model, token_delay_ms=20) as server:
        lines = stream_lines(server, max_tokens=150)
        next(lines)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "error" in ready(server), 5)
        refused = server.chat()
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
        assert "data: [DONE]" in list(lines)
        assert server.process.wait(20) == 0


def test_keys_from_the_environment_open_a_server_for_others(model: Path) -> None:
    key = "tw-canary-0123456789"
    with live_server(
        model, "--engine", "fake", "--host", "0.0.0.0", env={"TURNWISE_API_KEYS": f"other-key-of-us, {key}"}
    ) as server:
        assert server.chat().status_code == 401
        headers = {"authorization": f"Bearer {key}"}
        assert httpx2.get(f"{server.url}/v1/models", headers=headers).status_code == 200
        assert key not in server.log.read_text()
