"""The wire form of a message of Anthropic's: the whole JSON, or a stream's events. Pure: events in, bytes out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, Field
from pydantic_core import from_json

from turnwise_server.api.refusal.guarding import ReplyEvent
from turnwise_server.api.refusal.refused import Refused
from turnwise_server.api.wire import RefusalSignal, encode_json
from turnwise_server.chat.refusal.guarded_turn import GuardedTurn
from turnwise_server.chat.turn import ChoiceFinished, PreparedTurn, TextDelta, ToolCallDelta, Turn

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"]

PING = b'event: ping\ndata: {"type":"ping"}\n\n'


class MessageUsage(BaseModel):
    """Tokens of the prompt, in those that were cached and the rest, and of the reply."""

    input_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int
    output_tokens: int


class TextBlock(BaseModel):
    """What the model says."""

    type: Literal["text"] = "text"
    text: str


class ToolUseBlock(BaseModel):
    """A tool that the model calls."""

    type: Literal["tool_use"] = "tool_use"
    id: str
    name: str
    input: dict[str, object]


class StopDetails(BaseModel):
    """What a refusal says."""

    type: Literal["refusal"] = "refusal"
    category: None = None
    """Which of Anthropic's own categories it is: none. `x_refusal` names the policy's."""
    explanation: str


class AnthropicMessage(BaseModel):
    """A whole reply."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[TextBlock | ToolUseBlock]
    stop_reason: StopReason | None
    stop_sequence: str | None
    stop_details: StopDetails | None = Field(default=None, exclude_if=lambda value: value is None)
    x_refusal: RefusalSignal | None = Field(default=None, exclude_if=lambda value: value is None)
    usage: MessageUsage


class MessageStreamEvent(BaseModel):
    """One event of a streamed reply; what else it holds depends on its type."""

    type: Literal[
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "error",
    ]


def usage_of(prepared: PreparedTurn, turn: Turn | GuardedTurn) -> MessageUsage:
    """Count the tokens of a reply, so far or in the end."""
    return MessageUsage(
        input_tokens=prepared.prompt_tokens - turn.cached_tokens,
        cache_read_input_tokens=turn.cached_tokens,
        output_tokens=turn.completion_tokens,
    )


def _ending(event: ChoiceFinished | Refused) -> dict[str, Any]:
    """Return the fields of a message that say how it ends."""
    if isinstance(event, Refused):
        details = StopDetails(explanation=event.text).model_dump()
        ending = {"stop_reason": "refusal", "stop_sequence": None}
        return ending | {"stop_details": details, "x_refusal": event.signal}
    return {"stop_reason": _stop_reason(event), "stop_sequence": event.stop_string}


def _stop_reason(event: ChoiceFinished) -> StopReason:
    """Return Anthropic's word for the end of a reply."""
    if event.finish_reason == "length":
        return "max_tokens"
    if event.finish_reason == "tool_calls":
        return "tool_use"
    return "end_turn" if event.stop_string is None else "stop_sequence"


@dataclass(slots=True)
class _Block:
    """Text, or a call of a tool, whose parts are the JSON of its input."""

    id: str | None = None
    name: str = ""
    parts: list[str] = field(default_factory=list)

    def content(self) -> TextBlock | ToolUseBlock:
        if self.id is None:
            return TextBlock(text="".join(self.parts))
        # Of a call that was cut by length there is what was said of it, as clients read it from a stream.
        found = from_json("".join(self.parts) or "{}", allow_partial=True)
        return ToolUseBlock(id=self.id, name=self.name, input=found if isinstance(found, dict) else {})


class WholeMessage:
    """Collects the events of a reply into one JSON body."""

    def __init__(self, prepared: PreparedTurn, model: str) -> None:
        self._prepared = prepared
        self._model = model
        self._blocks: list[_Block] = []
        self._end: ChoiceFinished | Refused | None = None

    def add(self, event: ReplyEvent) -> None:
        """Take the next event."""
        match event:
            case Refused():
                self._end = event
                self._blocks = [] if event.content is None else [_Block(parts=[event.content])]
            case ChoiceFinished():
                self._end = event
            case ToolCallDelta():
                if event.id is not None:
                    self._blocks.append(_Block(tool_use_id(event.id), event.name or ""))
                self._blocks[-1].parts.append(event.arguments)
            case TextDelta(text=text) if text:
                if not self._blocks or self._blocks[-1].id is not None:
                    self._blocks.append(_Block())
                self._blocks[-1].parts.append(text)

    def body(self, usage: MessageUsage) -> bytes:
        """Return the JSON of the reply."""
        assert self._end is not None, "a reply has an end"
        message = AnthropicMessage(
            id=self._prepared.id,
            model=self._model,
            content=[block.content() for block in self._blocks],
            usage=usage,
            **_ending(self._end),
        )
        return encode_json(message.model_dump())


class MessageFrames:
    """Writes the events of a streamed reply, one block of content after another."""

    def __init__(self, prepared: PreparedTurn, model: str) -> None:
        self._prepared = prepared
        self._model = model
        self._blocks = 0
        self._open: Literal["text", "tool_use"] | None = None
        self._end: ChoiceFinished | Refused | None = None

    def opening(self, usage: MessageUsage) -> bytes:
        """Return the frames that come before the first token."""
        message = AnthropicMessage(
            id=self._prepared.id,
            model=self._model,
            content=[],
            stop_reason=None,
            stop_sequence=None,
            usage=usage,
        )
        return frame("message_start", message=message.model_dump()) + PING

    def event(self, event: ReplyEvent) -> bytes:
        """Return the frames of one event, if there are any."""
        match event:
            case Refused():
                return self._refused(event)
            case ChoiceFinished():
                self._end = event
            case ToolCallDelta():
                start = b"" if event.id is None else self._tool_use(event)
                return start + self._delta(type="input_json_delta", partial_json=event.arguments)
            case TextDelta(text=text) if text:
                start = b"" if self._open == "text" else self._start_text()
                return start + self._delta(type="text_delta", text=text)
        return b""

    def closing(self, usage: MessageUsage) -> bytes:
        """Return the frames that end the reply."""
        assert self._end is not None, "a reply has an end"
        is_retraction = isinstance(self._end, Refused) and self._end.retracts
        retraction = {"x_moderation": {"retract": True}} if is_retraction else {}
        ending = frame("message_delta", delta=_ending(self._end), usage=usage.model_dump(), **retraction)
        return self._stop() + ending + frame("message_stop")

    def _refused(self, event: Refused) -> bytes:
        """Say the refusal in a block of its own. A call that was open gets no end: clients make calls that have one."""
        self._end = event
        if self._open == "tool_use":
            self._open = None
            self._blocks += 1
        if event.content is None:
            return b""
        return self._start_text() + self._delta(type="text_delta", text=event.content)

    def _start_text(self) -> bytes:
        return self._start("text", {"type": "text", "text": ""})

    def _tool_use(self, event: ToolCallDelta) -> bytes:
        block = ToolUseBlock(id=tool_use_id(event.id or ""), name=event.name or "", input={})
        return self._start("tool_use", block.model_dump())

    def _start(self, kind: Literal["text", "tool_use"], block: dict[str, object]) -> bytes:
        stop = self._stop()
        self._open = kind
        return stop + frame("content_block_start", index=self._blocks, content_block=block)

    def _delta(self, **delta: str) -> bytes:
        return frame("content_block_delta", index=self._blocks, delta=delta)

    def _stop(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        self._blocks += 1
        return frame("content_block_stop", index=self._blocks - 1)


def tool_use_id(call_id: str) -> str:
    """Write the id of a call as Anthropic's clients know it."""
    return "toolu_" + call_id.removeprefix("call_")


def frame(event: str, **content: object) -> bytes:
    """Return one server-sent event, named as its data is."""
    return f"event: {event}\ndata: ".encode() + encode_json({"type": event, **content}) + b"\n\n"
