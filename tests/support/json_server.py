"""A real HTTP server in a thread that answers JSON by a function of the request, or fails as told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[str, Any], object]
"""From path and body to the answer: a string is sent as it is, anything else as JSON."""


@dataclass
class JsonServer:
    """Where it listens and what it saw."""

    url: str
    seen: list[tuple[str, Any]] = field(default_factory=list)
    """(path, body) of each request."""
    headers: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def json_server(answer: Answer, *, statuses: Sequence[int] = ()) -> Iterator[JsonServer]:
    """Serve `answer`; the first requests are answered by `statuses` instead."""
    failures = list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply(None)

        def do_POST(self) -> None:
            self._reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _reply(self, body: object) -> None:
            with lock:
                server.seen.append((self.path, body))
                server.headers.append(dict(self.headers))
                status = failures.pop(0) if failures else 200
            value = answer(self.path, body) if status == 200 else "out of order"
            text = value if isinstance(value, str) else json.dumps(value)
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    lock = threading.Lock()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server = JsonServer(f"http://127.0.0.1:{http.server_address[1]}")
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
