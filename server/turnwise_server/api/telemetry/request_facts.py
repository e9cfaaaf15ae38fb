"""What metrics and traces want to know of a request and its reply once they have ended. Never content, never keys."""

from __future__ import annotations

from dataclasses import dataclass

from turnwise_server.engine.timeline import Timeline

INCOMPLETE = "incomplete"
"""The finish reason of a reply that did not come to its own end."""


@dataclass(frozen=True, slots=True)
class ReplyFacts:
    """One reply of `n` choices. Moments are seconds of `time.perf_counter()`, None where it never came so far."""

    id: str
    model: str
    """The served name."""
    n: int
    max_tokens: int
    temperature: float
    top_p: float
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    finish_reasons: tuple[str, ...]
    """One for each choice that came to its own end."""
    timelines: tuple[Timeline, ...]
    """One a choice."""

    @property
    def is_complete(self) -> bool:
        """Whether every choice came to its own end."""
        return len(self.finish_reasons) == self.n

    def log_fields(self, arrived: float) -> dict[str, object]:
        """Return what the log says of it; `arrived` is when the request came."""
        fields: dict[str, object] = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cached_tokens": self.cached_tokens,
        }
        if self.finish_reasons:
            fields["finish_reason"] = self.finish_reasons[0]
        if self.started is not None:
            fields["queue_ms"] = round((self.started - self.queued) * 1000, 1)
        if self.first_token is not None:
            fields["ttft_ms"] = round((self.first_token - arrived) * 1000, 1)
        return fields

    @property
    def queued(self) -> float:
        """When the engine took it into its queue."""
        return min(timeline.queued for timeline in self.timelines)

    @property
    def started(self) -> float | None:
        """When its first choice left the queue."""
        return min((line.started for line in self.timelines if line.started is not None), default=None)

    @property
    def first_token(self) -> float | None:
        """When the first token of any choice came."""
        return min((line.tokens[0] for line in self.timelines if line.tokens), default=None)

    @property
    def last_token(self) -> float | None:
        """When the last token of any choice came."""
        return max((line.tokens[-1] for line in self.timelines if line.tokens), default=None)


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """An answered request."""

    request_id: str
    method: str
    endpoint: str
    """The pattern of its route, never the address as it was sent."""
    status: int
    """499 when the client left."""
    model: str = ""
    """The served name; empty if it reached no model."""
    stream: bool = False
    error: str | None = None
    """The code of the error it was answered with, if that has one."""
    reply: ReplyFacts | None = None
    """What became of its reply, if the engine had one to make."""

    @property
    def finish_reason(self) -> str:
        """How its reply ended: the reason of the first choice, "incomplete", or empty if there was none."""
        if self.reply is None:
            return ""
        return self.reply.finish_reasons[0] if self.reply.is_complete else INCOMPLETE
