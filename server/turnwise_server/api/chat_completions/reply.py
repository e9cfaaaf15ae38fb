"""The wire form of one chat reply: the whole JSON, or the frames of a stream. Pure: text events in, bytes out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from turnwise_server.api.moderations.wire import ReplyModeration
from turnwise_server.api.refusal.guarding import ReplyEvent
from turnwise_server.api.refusal.refused import Refused
from turnwise_server.api.wire import (
    AssistantMessage,
    ChatCompletion,
    Choice,
    ChoiceLogprobs,
    FinishReason,
    FunctionCall,
    MessageToolCall,
    PromptTokensDetails,
    RefusalSignal,
    TokenLogprob,
    TopLogprob,
    Usage,
    encode_json,
)
from turnwise_server.chat.refusal.guarded_turn import GuardedTurn
from turnwise_server.chat.turn import (
    ChoiceFinished,
    PreparedTurn,
    TextDelta,
    TokenText,
    ToolCallDelta,
    Turn,
)

_encode_text = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class ReplyIdentity:
    """What is the same in every frame of a reply."""

    id: str
    created: int
    model: str
    system_fingerprint: str


def usage_of(prepared: PreparedTurn, turn: Turn | GuardedTurn) -> Usage:
    """Count the tokens of a reply that has ended."""
    return Usage(
        prompt_tokens=prepared.prompt_tokens,
        completion_tokens=turn.completion_tokens,
        total_tokens=prepared.prompt_tokens + turn.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(
            cached_tokens=turn.cached_tokens, x_truncated_messages=prepared.dropped_messages or None
        ),
    )


@dataclass(slots=True)
class _ChoiceParts:
    texts: list[str] = field(default_factory=list)
    calls: list[MessageToolCall] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason = "stop"
    refused: Refused | None = None


class WholeReply:
    """Collects the events of a reply into one JSON body."""

    def __init__(self, identity: ReplyIdentity, *, n: int, has_logprobs: bool) -> None:
        self._identity = identity
        self._has_logprobs = has_logprobs
        self._choices = [_ChoiceParts() for _ in range(n)]

    def add(self, event: ReplyEvent) -> None:
        """Take the next event."""
        parts = self._choices[event.index]
        if isinstance(event, Refused):
            self._choices[event.index] = _ChoiceParts(finish_reason=event.finish_reason, refused=event)
            return
        if isinstance(event, ChoiceFinished):
            parts.finish_reason = event.finish_reason
            return
        parts.logprobs.extend(token_logprobs(event.logprobs))
        if isinstance(event, TextDelta):
            parts.texts.append(event.text)
        elif event.id is not None:
            function = FunctionCall(name=event.name or "", arguments="")
            parts.calls.append(MessageToolCall(id=event.id, function=function))
        else:
            parts.calls[event.call].function.arguments += event.arguments

    def body(self, usage: Usage, moderation: ReplyModeration | None = None) -> bytes:
        """Return the JSON of the reply."""
        identity = self._identity
        completion = ChatCompletion(
            id=identity.id,
            created=identity.created,
            model=identity.model,
            choices=[self._choice(index, parts) for index, parts in enumerate(self._choices)],
            usage=usage,
            system_fingerprint=identity.system_fingerprint,
            moderation=moderation,
        )
        return encode_json(completion.model_dump())

    def _choice(self, index: int, parts: _ChoiceParts) -> Choice:
        refused = parts.refused
        return Choice(
            index=index,
            message=_message(parts),
            logprobs=ChoiceLogprobs(content=parts.logprobs) if self._has_logprobs else None,
            finish_reason=parts.finish_reason,
            x_refusal=RefusalSignal.model_validate(refused.signal) if refused else None,
        )


def _message(parts: _ChoiceParts) -> AssistantMessage:
    if parts.refused is not None:
        return AssistantMessage(content=parts.refused.content, refusal=parts.refused.refusal)
    content = "".join(parts.texts)
    calls = parts.calls or None
    return AssistantMessage(content=None if calls and not content else content, tool_calls=calls)


class ChunkWriter:
    """Writes the frames of a streamed reply. What does not change is encoded once, so a token costs microseconds."""

    def __init__(self, identity: ReplyIdentity, *, includes_usage: bool) -> None:
        head = encode_json(
            {
                "id": identity.id,
                "object": "chat.completion.chunk",
                "created": identity.created,
                "model": identity.model,
                "service_tier": "default",
                "system_fingerprint": identity.system_fingerprint,
            }
        ).decode()
        self._head = f'data: {head[:-1]},"choices":['
        self._tail = '],"usage":null}\n\n' if includes_usage else "]}\n\n"

    def opening(self, n: int) -> bytes:
        """Return the first frame of every choice, which alone carries the role."""
        delta = '"delta":{"role":"assistant","content":"","refusal":null}'
        return b"".join(self._frame(index, delta, "null") for index in range(n))

    def event(self, event: ReplyEvent) -> bytes:
        """Return the frame of one event, or the frames of a refusal."""
        if isinstance(event, Refused):
            return self._refused(event)
        if isinstance(event, ChoiceFinished):
            return self._frame(event.index, '"delta":{}', f'"{event.finish_reason}"')
        return self._frame(event.index, f'"delta":{_delta(event)}{_logprobs(event.logprobs)}', "null")

    def moderation(self, moderation: ReplyModeration) -> bytes:
        """Return the frame that says what was found in the request and the reply; it comes before the usage."""
        scores = encode_json(moderation.model_dump()).decode()
        return f'{self._head}],"moderation":{scores}{self._tail[1:]}'.encode()

    def usage(self, usage: Usage) -> bytes:
        """Return the last frame of a reply whose client asked for usage."""
        return f'{self._head}],"usage":{encode_json(usage.model_dump()).decode()}}}\n\n'.encode()

    def _refused(self, event: Refused) -> bytes:
        signal = f'"x_refusal":{encode_json(event.signal).decode()}'
        retraction = ',"x_moderation":{"retract":true}' if event.retracts else ""
        words = f'"delta":{encode_json(event.delta).decode()},{signal}{retraction}'
        end = self._frame(event.index, f'"delta":{{}},{signal}', f'"{event.finish_reason}"')
        return self._frame(event.index, words, "null") + end

    def _frame(self, index: int, fields: str, finish_reason: str) -> bytes:
        return (
            f'{self._head}{{"index":{index},{fields},"finish_reason":{finish_reason}}}{self._tail}'.encode()
        )


def _delta(event: TextDelta | ToolCallDelta) -> str:
    if isinstance(event, TextDelta):
        return f'{{"content":{_encode_text(event.text)}}}' if event.text else "{}"
    function = {"arguments": event.arguments}
    call: dict[str, object] = {"index": event.call}
    if event.id is not None:
        call |= {"id": event.id, "type": "function"}
        function = {"name": event.name or "", **function}
    return encode_json({"tool_calls": [call | {"function": function}]}).decode()


def _logprobs(tokens: Sequence[TokenText]) -> str:
    if not tokens:
        return ""
    content = [item.model_dump() for item in token_logprobs(tokens)]
    return f',"logprobs":{{"content":{encode_json(content).decode()},"refusal":null}}'


def token_logprobs(tokens: Iterable[TokenText]) -> Iterable[TokenLogprob]:
    """Yield the wire form of the probabilities of tokens."""
    for token in tokens:
        yield TokenLogprob(
            token=token.token,
            logprob=token.logprob,
            bytes=list(token.bytes),
            top_logprobs=[
                TopLogprob(token=top.token, logprob=top.logprob, bytes=list(top.bytes)) for top in token.top
            ],
        )
