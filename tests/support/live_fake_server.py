"""A live server on the fake engine, and clients on bare sockets: watch it, stall it, hang up with FIN or RST."""

from __future__ import annotations

import http.client
import json
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.fake_model import write_script
from support.live_server import LiveServer, live_server, wait_until

ENDLESS = "the quick brown fox " * 15_000


@contextmanager
def fake_live_server(model: Path, *flags: str, **script: Any) -> Iterator[LiveServer]:
    """Serve a reply without an end from the model directory of `write_fake_model`."""
    file = write_script(model / "script.json", ENDLESS, **script)
    with live_server(model, "--engine", "fake", "--fake-script", str(file), *flags) as server:
        yield server


def ready(server: LiveServer) -> dict[str, Any]:
    """Return the body of /ready; quicker than a client library, which matters on a busy machine."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "/ready")
    content: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return content


def wait_for(server: LiveServer, limit_s: float = 10, **counts: int) -> None:
    """Wait until so many replies are `running` and `waiting`."""
    wait_until(lambda: counts.items() <= ready(server).items(), limit_s, 0.02)


@contextmanager
def posted(
    server: LiveServer, body: dict[str, Any], *, receive_buffer: int | None = None
) -> Iterator[socket.socket]:
    """Send a request on a bare socket and leave the reply there."""
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(20)
    content = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(content)}\r\n\r\n"
    with connection:
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(head.encode() + content)
        yield connection


def read_until(connection: socket.socket, end: bytes) -> bytes:
    """Read until `end` has come, or the server closes."""
    data = b""
    while end not in data:
        more = connection.recv(65536)
        if not more:
            break
        data += more
    return data


def reset(connection: socket.socket) -> None:
    """Close with RST instead of FIN, as a crashed client does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
