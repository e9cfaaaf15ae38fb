"""Get one streamed reply: from the server to the display, and into a `Reply` whatever happens on the way."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, Self

from turnwise_client.conversation import FAILED, INTERRUPTED, Reply, Usage
from turnwise_client.errors import ServerError
from turnwise_client.http import ChatApi, ChatRequest
from turnwise_client.keyboard import one_interrupt, silent_keyboard
from turnwise_client.wire import Chunk


class Display(AbstractContextManager["Display"], Protocol):
    """Shows a reply while it grows."""

    def __enter__(self) -> Self: ...

    def feed(self, text: str) -> None: ...

    def retract(self) -> None:
        """Take back what was shown, as far as that can be done; another text follows."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended. `reply` is None when nothing arrived; `error` says why a reply failed or broke off."""

    reply: Reply | None
    error: ServerError | None = None
    was_interrupted: bool = False


class ReplyBuilder:
    """Adds chunks up to a `Reply`. Times are seconds of any steady clock."""

    def __init__(self, *, model: str) -> None:
        self.dropped_messages = 0
        self._model = model
        self._texts: list[str] = []
        self._finish_reason: str | None = None
        self._refusal: str | None = None
        self._was_retracted = False
        self._usage: Usage | None = None
        self._first_text_at: float | None = None
        self._last_text_at = 0.0

    def add(self, chunk: Chunk, now_s: float) -> None:
        """Take what one chunk says."""
        if chunk.retracts:
            self._texts.clear()
            self._was_retracted = True
        if chunk.text:
            self._texts.append(chunk.text)
            self._last_text_at = now_s
            if self._first_text_at is None:
                self._first_text_at = now_s
        self._finish_reason = chunk.finish_reason or self._finish_reason
        self._refusal = chunk.refusal or self._refusal
        self._usage = chunk.usage or self._usage
        self._model = chunk.model or self._model

    def complete(self) -> Reply:
        """Return the reply, which has ended."""
        return self._reply(self._finish_reason or "stop")

    def cut(self, reason: str) -> Reply | None:
        """Return what came of a reply that was cut for `reason`; None if it had said nothing."""
        return self._reply(self._finish_reason or reason) if self._texts else None

    def _reply(self, finish_reason: str) -> Reply:
        return Reply(
            text="".join(self._texts),
            finish_reason=finish_reason,
            model=self._model,
            refusal=self._refusal,
            was_retracted=self._was_retracted,
            usage=self._usage,
            dropped_messages=self.dropped_messages,
            tokens_per_second=self._tokens_per_second(),
        )

    def _tokens_per_second(self) -> float | None:
        """Speed of generation: the first token's wait is not part of it."""
        if self._usage is None or self._usage.completion_tokens < 2 or self._first_text_at is None:
            return None
        if self._last_text_at <= self._first_text_at:
            return None
        return (self._usage.completion_tokens - 1) / (self._last_text_at - self._first_text_at)


def stream_reply(api: ChatApi, request: ChatRequest, display: Display) -> Outcome:
    """Show a reply as it arrives. Ctrl-C closes the connection and keeps what came; a second one changes nothing."""
    builder = ReplyBuilder(model=request.model)
    with silent_keyboard(), one_interrupt() as gate, display:
        try:
            with api.stream(request) as stream:
                builder.dropped_messages = stream.dropped_messages
                for chunk in stream.chunks:
                    builder.add(chunk, time.monotonic())
                    if chunk.retracts:
                        display.retract()
                    display.feed(chunk.text)
        except KeyboardInterrupt:
            return Outcome(builder.cut(INTERRUPTED), was_interrupted=True)
        except ServerError as error:
            return Outcome(builder.cut(FAILED), error=error)
        finally:
            gate.disarm()
    return Outcome(builder.complete())
