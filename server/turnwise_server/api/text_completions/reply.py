"""The wire form of one text completion: the whole JSON, or the frames of a stream. Pure: text events in, bytes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, Field

from turnwise_server.api.chat_completions.reply import ReplyIdentity
from turnwise_server.api.refusal.guarding import ReplyEvent
from turnwise_server.api.refusal.refused import Refused
from turnwise_server.api.wire import RefusalSignal, Retraction, Usage, encode_json
from turnwise_server.chat.turn import ChoiceFinished, TextDelta, TokenText

TextFinishReason = Literal["stop", "length", "content_filter"]


class TextLogprobs(BaseModel):
    """The tokens of a choice, in four lists of one length."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    """The likeliest tokens in each place, and the one that was chosen."""
    text_offset: list[int]
    """Where each token begins: characters from the start of the choice."""


class TextChoice(BaseModel):
    """One reply to one prompt, or in a stream a part of it."""

    text: str
    index: int
    logprobs: TextLogprobs | None
    finish_reason: TextFinishReason | None
    x_refusal: RefusalSignal | None = Field(default=None, exclude_if=lambda value: value is None)
    x_moderation: Retraction | None = Field(default=None, exclude_if=lambda value: value is None)


class TextCompletion(BaseModel):
    """A whole reply, or a part of one."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage | None
    system_fingerprint: str


@dataclass(slots=True)
class _ChoiceParts:
    texts: list[str]
    logprobs: list[TokenText] = field(default_factory=list)
    finish_reason: TextFinishReason | None = None
    refused: Refused | None = None


class WholeText:
    """Collects the events of a reply into one JSON body."""

    def __init__(self, identity: ReplyIdentity, *, echoes: Sequence[str], has_logprobs: bool) -> None:
        """Begin the text of every choice with its `echoes`."""
        self._identity = identity
        self._has_logprobs = has_logprobs
        self._choices = [_ChoiceParts([echo]) for echo in echoes]

    def add(self, event: ReplyEvent) -> None:
        """Take the next event."""
        parts = self._choices[event.index]
        if isinstance(event, Refused):
            self._choices[event.index] = _ChoiceParts(
                [event.text], finish_reason=event.finish_reason, refused=event
            )
        elif isinstance(event, ChoiceFinished):
            parts.finish_reason = _finish_reason(event)
        elif isinstance(event, TextDelta):
            parts.texts.append(event.text)
            parts.logprobs.extend(event.logprobs)

    def body(self, usage: Usage) -> bytes:
        """Return the JSON of the reply."""
        choices = [
            TextChoice(
                text="".join(parts.texts),
                index=index,
                logprobs=text_logprobs(parts.logprobs) if self._has_logprobs else None,
                finish_reason=parts.finish_reason,
                x_refusal=RefusalSignal.model_validate(parts.refused.signal) if parts.refused else None,
            )
            for index, parts in enumerate(self._choices)
        ]
        return encode_json(_completion(self._identity, choices, usage).model_dump())


class TextFrames:
    """Writes the frames of a streamed reply. What does not change is encoded once."""

    def __init__(self, identity: ReplyIdentity, *, echoes: Sequence[str], includes_usage: bool) -> None:
        """Begin the text of every choice with its `echoes`."""
        # A prompt is given back with the first event of its choice: not if it is refused.
        self._echoes = {index: echo for index, echo in enumerate(echoes) if echo}
        whole = encode_json(_completion(identity, [], None).model_dump())
        head, _, tail = whole.partition(b'[],"usage":null')
        self._head = b"data: " + head + b"["
        self._null_usage = b'],"usage":null' if includes_usage else b"]"
        self._tail = tail + b"\n\n"

    def event(self, event: ReplyEvent) -> bytes:
        """Return the frame of one event, behind that of the prompt if it is the choice's first."""
        echo = self._echoes.pop(event.index, "")
        if isinstance(event, Refused):
            return self._refused(event)
        before = self._frame(event.index, echo) if echo else b""
        if isinstance(event, TextDelta):
            logprobs = text_logprobs(event.logprobs).model_dump() if event.logprobs else None
            return before + self._frame(event.index, event.text, logprobs)
        reason = _finish_reason(event) if isinstance(event, ChoiceFinished) else None
        return before + self._frame(event.index, finish_reason=reason)

    def usage(self, usage: Usage) -> bytes:
        """Return the last frame of a reply whose client asked for usage."""
        return self._head + b'],"usage":' + encode_json(usage.model_dump()) + self._tail

    def _refused(self, event: Refused) -> bytes:
        """Return the one frame of a refusal, whose text stands for what it takes back."""
        signals: dict[str, object] = {"x_refusal": event.signal}
        if event.retracts:
            signals["x_moderation"] = {"retract": True}
        return self._frame(event.index, event.text, finish_reason=event.finish_reason, extensions=signals)

    def _frame(
        self,
        index: int,
        text: str = "",
        logprobs: dict[str, object] | None = None,
        finish_reason: str | None = None,
        extensions: Mapping[str, object] | None = None,
    ) -> bytes:
        choice = {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish_reason}
        choice |= extensions or {}
        return self._head + encode_json(choice) + self._null_usage + self._tail


def _completion(identity: ReplyIdentity, choices: list[TextChoice], usage: Usage | None) -> TextCompletion:
    return TextCompletion(
        id=identity.id,
        created=identity.created,
        model=identity.model,
        choices=choices,
        usage=usage,
        system_fingerprint=identity.system_fingerprint,
    )


def _finish_reason(event: ChoiceFinished) -> Literal["stop", "length"]:
    return "length" if event.finish_reason == "length" else "stop"


def text_logprobs(tokens: Iterable[TokenText]) -> TextLogprobs:
    """Return the four lists of a choice's tokens."""
    tokens = tuple(tokens)
    return TextLogprobs(
        tokens=[_token(token) for token in tokens],
        token_logprobs=[token.logprob for token in tokens],
        top_logprobs=[{_token(each): each.logprob for each in (*token.top, token)} for token in tokens],
        text_offset=[token.offset for token in tokens],
    )


def _token(token: TokenText) -> str:
    """Write a token that is a part of a character as OpenAI does, so that two of them never look the same."""
    if "\N{REPLACEMENT CHARACTER}" not in token.token:
        return token.token
    return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token.bytes)
