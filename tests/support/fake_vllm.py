"""A server that speaks the part of vLLM's wire that rollouts use, on an engine of our own, in a thread."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from transformers import PreTrainedModel

from turnwise_training.parallel import Parallel
from turnwise_training.rollout import TransformersEngine

SAMPLING = {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}


class FakeVLLM:
    """Answers completions of token ids and loads weights from directories; it notes what it was asked."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Serve a model; its weights are replaced by the first ones loaded."""
        self._model = model
        self._lock = threading.Lock()
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.failures: list[int] = []
        """Statuses to answer the next requests with; 0 closes the connection without an answer."""
        self.without: str = ""
        """A field that is left out of completions."""
        self.url = ""

    def paths(self) -> list[str]:
        """Return the paths asked for, in order."""
        return [path for path, _ in self.calls]

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, object]:
        """Return the status and the JSON to answer a request with; one request is worked on at a time."""
        with self._lock:
            self.calls.append((path, body))
            if self.failures:
                return self.failures.pop(0), {"error": "as the test wants it"}
            if path == "/v1/completions":
                return 200, self._complete(body)
            if path == "/collective_rpc" and body["method"] == "reload_weights":
                self._reload(Path(body["kwargs"]["weights_path"]))
                return 200, {"results": [None]}
            return (200, None) if path == "/reset_prefix_cache" else (404, {"detail": "Not Found"})

    def _complete(self, body: dict[str, Any]) -> dict[str, object]:
        assert {name: body[name] for name in SAMPLING} == SAMPLING
        assert body["return_token_ids"] is True
        engine = TransformersEngine(
            self._model,
            Parallel(),
            end_ids=frozenset(body["stop_token_ids"]),
            pad_id=0,
            batch=1,
            precision="float32",
        )
        (sample,) = engine.sample(
            [body["prompt"]],
            [body["seed"]],
            max_new_tokens=body["max_tokens"],
            temperature=body["temperature"],
        )
        choice = {
            "index": 0,
            "text": "",
            "finish_reason": "stop" if sample.ended else "length",
            "token_ids": sample.ids,
            "logprobs": {"token_logprobs": sample.log_probs},
        }
        return {"choices": [{name: value for name, value in choice.items() if name != self.without}]}

    def _reload(self, folder: Path) -> None:
        missing, unexpected = self._model.load_state_dict(
            load_file(folder / "model.safetensors"), strict=False
        )
        assert not unexpected
        assert set(missing) <= {"lm_head.weight"}  # tied to the embedding


@contextmanager
def fake_vllm(model: PreTrainedModel) -> Iterator[FakeVLLM]:
    """Run a fake server for a model at its `url`."""
    fake = FakeVLLM(model)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, answer = fake.answer(self.path, body)
            if status:
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        fake.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()
