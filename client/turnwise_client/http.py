"""Talk to a server that speaks the OpenAI chat API. It knows nothing of the terminal.

Every failure becomes one of `errors`, with a message that says what to do. Leaving a stream early, by an exception
or by `break`, closes the connection: that is how the server learns that nobody waits for the reply any more.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx2

from turnwise_client.errors import BrokenReplyError, RejectedError, ServerError, UnreachableError
from turnwise_client.sanitise import one_line
from turnwise_client.settings import Sampling
from turnwise_client.wire import (
    DONE,
    Chunk,
    ErrorBody,
    ModelInfo,
    read_chunk,
    read_error,
    read_json,
    read_models,
)

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 600.0
"""As long as the server may take for a whole reply; a stream pings far more often."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One request for a reply."""

    model: str
    messages: Sequence[Mapping[str, str]]
    sampling: Sampling = field(default_factory=Sampling)

    def body(self, *, stream: bool) -> dict[str, object]:
        """Return the JSON to send; streams ask for the token counts too."""
        options: dict[str, object] = (
            {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        )
        return {"model": self.model, "messages": list(self.messages), **self.sampling.as_fields(), **options}


@dataclass(frozen=True, slots=True)
class ReplyStream:
    """A reply on its way: what its headers said, and its chunks as they come."""

    dropped_messages: int
    chunks: Iterator[Chunk]


class ChatApi:
    """A connection to one server."""

    def __init__(self, *, server: str, api_key: str | None = None) -> None:
        self.server = server
        self._has_key = api_key is not None
        self._client = httpx2.Client(
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx2.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            trust_env=not _is_loopback(server),
        )

    def close(self) -> None:
        self._client.close()

    def models(self) -> tuple[ModelInfo, ...]:
        """Return the models the server offers, in its order.

        Raises:
            ServerError: there is no server, or it has none to offer.
        """
        with self._failures_explained():
            response = self._client.get(f"{self.server}/v1/models")
        self._raise_for_error(response)
        models = read_models(read_json(response.text))
        if not models:
            raise RejectedError(f"the server at {self.server} offers no model")
        return models

    def complete(self, request: ChatRequest) -> tuple[Mapping[str, object], int]:
        """Return a whole reply as the server sent it, and how many messages were dropped to fit the context.

        Raises:
            ServerError: there is no reply.
        """
        with self._failures_explained():
            response = self._client.post(
                f"{self.server}/v1/chat/completions", json=request.body(stream=False)
            )
        self._raise_for_error(response)
        return read_json(response.text), _dropped_messages(response)

    @contextmanager
    def stream(self, request: ChatRequest) -> Iterator[ReplyStream]:
        """Open a streamed reply; leaving the context closes the connection, whatever has arrived.

        Raises:
            ServerError: there is no reply, or (from the chunks) it broke off.
        """
        url, body = f"{self.server}/v1/chat/completions", request.body(stream=True)
        with self._failures_explained(), self._client.stream("POST", url, json=body) as response:
            if not response.is_success:
                response.read()
            self._raise_for_error(response)
            yield ReplyStream(_dropped_messages(response), _chunks(response))

    @contextmanager
    def _failures_explained(self) -> Iterator[None]:
        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise UnreachableError(self._no_server()) from error
        except httpx2.ReadTimeout as error:
            raise BrokenReplyError(f"the server said nothing for {READ_TIMEOUT_S:g} s") from error
        except httpx2.SSEError as error:
            raise BrokenReplyError(
                f"the server did not send a proper stream: {one_line(str(error))}"
            ) from error
        except httpx2.TransportError as error:
            raise BrokenReplyError("the connection to the server broke") from error
        except httpx2.DecodingError as error:
            raise BrokenReplyError("the server sent something that cannot be decoded") from error

    def _no_server(self) -> str:
        remedy = ": start one with `make serve` or turnwise-server" if _is_loopback(self.server) else ""
        return f"no server at {self.server}{remedy}"

    def _raise_for_error(self, response: httpx2.Response) -> None:
        if response.is_success:
            return
        raise RejectedError(
            explain_rejection(
                status=response.status_code,
                error=_error_body(response),
                retry_after=response.headers.get("retry-after"),
                server=self.server,
                has_key=self._has_key,
            )
        )


def explain_rejection(
    *, status: int, error: ErrorBody | None, retry_after: str | None, server: str, has_key: bool
) -> str:
    """Say in one line why the server refused to answer, and what the user can do."""
    said = one_line(error.message).rstrip(".") if error else f"HTTP {status} without an explanation"
    if status == 401:
        fault = "does not accept this API key" if has_key else "wants an API key"
        return f"the server at {server} {fault}: set TURNWISE_API_KEY or --api-key-file"
    if status in (429, 503):
        what = "this key has reached its limit" if status == 429 else "the server is overloaded or not ready"
        wait = f"in {one_line(retry_after)} s" if retry_after and retry_after.isdigit() else "in a moment"
        return f"{what} ({said}): try again {wait}"
    if error and error.code == "model_not_found":
        return f"{said} (/model lists what there is)"
    if error and error.code == "context_length_exceeded":
        return f"{said} (a shorter message, or /new, helps)"
    return f"the server answered: {said}" if error else f"the server at {server} answered {said}"


def _error_body(response: httpx2.Response) -> ErrorBody | None:
    try:
        return read_error(read_json(response.text))
    except ServerError:
        return None


def _chunks(response: httpx2.Response) -> Iterator[Chunk]:
    has_finished = False
    for event in httpx2.EventSource(response):
        if event.data == DONE:
            return
        if not event.data:
            continue
        body = read_json(event.data)
        error = read_error(body)
        if error is not None:
            raise BrokenReplyError(f"the reply broke off: {one_line(error.message)}")
        chunk = read_chunk(body)
        has_finished = has_finished or chunk.finish_reason is not None
        yield chunk
    if not has_finished:
        raise BrokenReplyError("the reply broke off: the server closed the connection early")


def _dropped_messages(response: httpx2.Response) -> int:
    value = response.headers.get("x-context-truncated", "")
    return int(value) if value.isascii() and value.isdecimal() and len(value) < 10 else 0


def _is_loopback(server: str) -> bool:
    host = urlsplit(server).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
