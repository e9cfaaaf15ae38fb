"""An OpenAI-compatible server that plays a script: slow, broken, refusing or dying, and that notes what it saw.

Each request for a reply takes the next `Script` from the list; the last one is played again when the list is used up.
"""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL = "scripted-1"
CONTEXT_LENGTH = 2048


@dataclass(frozen=True)
class Script:
    """How one request is answered."""

    pieces: Sequence[str] = ("Hello", " there!")
    """Deltas of the reply, in order."""
    delay_s: float = 0.0
    """Pause before every piece."""
    finish_reason: str = "stop"
    headers: Mapping[str, str] = field(default_factory=dict)
    x_refusal: Mapping[str, str] | None = None
    retraction: str | None = None
    """The words that take the pieces back at the end of a stream."""
    status: int = 200
    error: Mapping[str, object] | str | None = None
    """With a status other than 200 the body; else an error event after the pieces."""
    dies: bool = False
    """Cut the connection after the pieces, without an end."""
    hangs_s: float = 0.0
    """Pause after the pieces, before the end."""
    bytes_per_write: int | None = None
    """Cut the stream into writes of this many bytes, wherever they fall."""


@dataclass
class Seen:
    """One request as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, object]
    hung_up: threading.Event = field(default_factory=threading.Event)
    """Set when the client closed the connection before the reply had ended."""

    @property
    def messages(self) -> list[tuple[str, str]]:
        messages = self.body["messages"]
        assert isinstance(messages, list)
        return [(message["role"], message["content"]) for message in messages]


class ClientLeftError(Exception):
    """The client closed the connection."""


class ScriptedServer:
    """Serves scripts on a free loopback port, a thread for each connection."""

    def __init__(self, scripts: Sequence[Script]) -> None:
        self.scripts = list(scripts)
        self.requests: list[Seen] = []
        self._http = _Http(self)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def next_script(self) -> Script:
        return self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]


@contextmanager
def scripted_openai(*scripts: Script) -> Iterator[ScriptedServer]:
    """Run a server that plays `scripts`, the default one if there are none."""
    server = ScriptedServer(scripts or (Script(),))
    server.start()
    try:
        yield server
    finally:
        server.stop()


def unused_url() -> str:
    """Return an address where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, scripted: ScriptedServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.scripted = scripted


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def _scripted(self) -> ScriptedServer:
        assert isinstance(self.server, _Http)
        return self.server.scripted

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
        """Keep quiet."""

    def do_GET(self) -> None:
        model = {
            "id": MODEL,
            "object": "model",
            "created": 0,
            "owned_by": "us",
            "max_model_len": CONTEXT_LENGTH,
        }
        self._send_json(200, {"object": "list", "data": [model, {**model, "id": "scripted-2"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(self.path, headers, body)
        scripted = self._scripted
        scripted.requests.append(seen)
        script = scripted.next_script()
        if script.status != 200:
            self._send_json(script.status, {"error": script.error}, script.headers)
        elif body.get("stream"):
            self._stream(script, seen)
        else:
            self._send_json(200, _completion(script), script.headers)

    def _send_json(self, status: int, value: object, headers: Mapping[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"content-type": "application/json", **(headers or {})}.items():
            self.send_header(name, text)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, script: Script, seen: Seen) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        for name, text in script.headers.items():
            self.send_header(name, text)
        self.end_headers()
        try:
            for pause_s, frame in _frames(script):
                self._wait(pause_s)
                self._write(frame.encode(), script.bytes_per_write)
            if not script.dies:
                self.wfile.write(b"0\r\n\r\n")
        except (ClientLeftError, BrokenPipeError, ConnectionResetError):
            seen.hung_up.set()

    def _write(self, data: bytes, bytes_per_write: int | None) -> None:
        step = bytes_per_write or len(data)
        for start in range(0, len(data), step):
            part = data[start : start + step]
            self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            self.wfile.flush()

    def _wait(self, pause_s: float) -> None:
        until = time.monotonic() + pause_s
        while (left := until - time.monotonic()) > 0:
            readable, _, _ = select.select([self.connection], [], [], min(left, 0.02))
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                raise ClientLeftError


def _frames(script: Script) -> Iterator[tuple[float, str]]:
    """Yield the events of a stream, each with the pause before it."""
    yield 0.0, _chunk({"role": "assistant", "content": "", "refusal": None})
    yield 0.0, ": ping\n\n"
    for piece in script.pieces:
        yield script.delay_s, _chunk({"content": piece})
    yield script.hangs_s, ": ping\n\n"
    if script.dies:
        return
    if script.error is not None:
        yield 0.0, f"data: {json.dumps({'error': script.error})}\n\n"
        return
    extension: dict[str, object] = {"x_refusal": script.x_refusal} if script.x_refusal else {}
    if script.retraction is not None:
        retracts = extension | {"x_moderation": {"retract": True}}
        yield 0.0, _chunk({"refusal": script.retraction}, extension=retracts)
    yield 0.0, _chunk({}, finish_reason=script.finish_reason, extension=extension)
    yield (
        0.0,
        f"data: {json.dumps({**_envelope('chat.completion.chunk'), 'choices': [], 'usage': _usage(script)})}\n\n",
    )
    yield 0.0, "data: [DONE]\n\n"


def _envelope(kind: str) -> dict[str, object]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": MODEL}


def _usage(script: Script) -> dict[str, int]:
    count = len(script.pieces)
    return {"prompt_tokens": 10, "completion_tokens": count, "total_tokens": 10 + count}


def _chunk(
    delta: Mapping[str, object],
    *,
    finish_reason: str | None = None,
    extension: Mapping[str, object] | None = None,
) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, **(extension or {})}
    return (
        f"data: {json.dumps({**_envelope('chat.completion.chunk'), 'choices': [choice], 'usage': None})}\n\n"
    )


def _completion(script: Script) -> dict[str, object]:
    choice: dict[str, object] = {
        "index": 0,
        "message": {"role": "assistant", "content": "".join(script.pieces), "refusal": None},
        "finish_reason": script.finish_reason,
    }
    if script.x_refusal:
        choice["x_refusal"] = script.x_refusal
    return {**_envelope("chat.completion"), "choices": [choice], "usage": _usage(script)}
