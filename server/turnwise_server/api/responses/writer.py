"""Writes one response: turn events in, the frames of its stream out. Pure.

The whole response is what the stream adds up to: a reply that is not streamed is written in the same way, and only
its last state is sent.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable

from turnwise_server.api.chat_completions.reply import token_logprobs
from turnwise_server.api.errors import ErrorReply
from turnwise_server.api.refusal.guarding import ReplyEvent
from turnwise_server.api.refusal.refused import Refused
from turnwise_server.api.responses.items import item_id
from turnwise_server.api.responses.open_item import Event, OpenCall, OpenItem, OpenMessage
from turnwise_server.api.responses.refusal_item import refusal_events, refusal_message
from turnwise_server.api.responses.wire import (
    IncompleteDetails,
    IncompleteReason,
    ItemStatus,
    ModelResponse,
    ResponseError,
    ResponseUsage,
    Status,
)
from turnwise_server.api.wire import TokenLogprob, encode_json
from turnwise_server.chat.turn import TextDelta, ToolCallDelta

_INCOMPLETE: dict[str, IncompleteReason] = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Why a response is incomplete, by what ended its turn."""

_encode_text = json.JSONEncoder(ensure_ascii=False).encode


class ResponseWriter:
    """Every method takes what happened and returns the frames that tell it; `response` is what is known so far."""

    def __init__(self, draft: ModelResponse) -> None:
        """Write on from `draft`, the response before anything has happened."""
        self._response = draft
        self._open: OpenItem | None = None
        self._finish_reason = ""
        self._sequence_number = 0

    @property
    def response(self) -> ModelResponse:
        """The response as it stands, with the item that is being written."""
        if self._open is None:
            return self._response
        # An item stays open only where a response breaks off.
        status: ItemStatus = "in_progress" if self._response.status == "in_progress" else "incomplete"
        output = [*self._response.output, self._open.item(status)]
        return self._response.model_copy(update={"output": output})

    def created(self) -> bytes:
        """Return the first frames."""
        frames = self._lifecycle("created")
        return frames + self._lifecycle("queued") if self._response.status == "queued" else frames

    def started(self) -> bytes:
        """Tell that the model has begun."""
        self._update(status="in_progress")
        return self._lifecycle("in_progress")

    def event(self, event: ReplyEvent) -> bytes:
        """Take the next event of the reply."""
        match event:
            case TextDelta():
                return self._text(event)
            case ToolCallDelta():
                return self._call(event)
            case Refused():
                return self._refused(event)
        self._finish_reason = event.finish_reason
        opening = b"" if self._open or self._response.output else self._begin_message()
        return opening + self._end_item("incomplete" if self._finish_reason in _INCOMPLETE else "completed")

    def finish(self, usage: ResponseUsage) -> None:
        """Take the end of the turn; `finished` tells it, once the response is where it has to be."""
        if reason := _INCOMPLETE.get(self._finish_reason):
            details = IncompleteDetails(reason=reason)
            self._update(status="incomplete", incomplete_details=details, usage=usage)
        else:
            self._update(status="completed", completed_at=int(time.time()), usage=usage)

    def finished(self) -> bytes:
        """Tell that the response is complete, or as complete as it can be."""
        return self._lifecycle(self._response.status)

    def failed(self, error: ErrorReply) -> bytes:
        """Tell that there will be no more; SDKs raise the second of the two frames as an exception."""
        self._break_off("failed", error=ResponseError(message=error.message))
        return self._lifecycle("failed") + error_frame(error, self._next_number())

    def cancelled(self) -> bytes:
        """Tell that the client wants no more."""
        self._break_off("cancelled")
        return self._lifecycle("cancelled")

    def _break_off(self, status: Status, error: ResponseError | None = None) -> None:
        self._update(status=status, error=error, completed_at=None, incomplete_details=None, usage=None)
        self._response, self._open = self.response, None

    def _update(self, **fields: object) -> None:
        self._response = self._response.model_copy(update=fields)

    def _text(self, event: TextDelta) -> bytes:
        opening = b""
        if not isinstance(self._open, OpenMessage):
            if not event.text and (self._open or self._response.output):
                return b""
            opening = self._begin_message()
        message = self._open
        assert isinstance(message, OpenMessage)
        logprobs = list(token_logprobs(event.logprobs))
        message.texts.append(event.text)
        message.logprobs.extend(logprobs)
        # Written by hand, because there is one for every token.
        frame = (
            'event: response.output_text.delta\ndata: {"type":"response.output_text.delta",'
            f'"sequence_number":{self._next_number()},"item_id":"{message.id}","output_index":{message.index},'
            f'"content_index":0,"delta":{_encode_text(event.text)},"logprobs":{_encode_logprobs(logprobs)}}}\n\n'
        )
        return opening + frame.encode()

    def _call(self, event: ToolCallDelta) -> bytes:
        opening = b""
        if event.id is not None:
            ending = self._end_item("completed")
            item = OpenCall(self._new_id("fc"), len(self._response.output), event.id, event.name or "")
            opening = ending + self._begin(item)
        call = self._open
        assert isinstance(call, OpenCall)
        return opening + (self._frames([call.more(event.arguments)]) if event.arguments else b"")

    def _refused(self, event: Refused) -> bytes:
        """Let the refusal be all of the output. An item that was open gets no end: clients act on what has ended."""
        self._finish_reason = event.finish_reason
        index = len(self.response.output)
        message = refusal_message(event, item_id("msg", self._response.id, "o", index))
        self._open = None
        self._update(output=[message])
        return self._frames(refusal_events(message, index, retracts=event.retracts))

    def _begin_message(self) -> bytes:
        ending = self._end_item("completed")
        return ending + self._begin(OpenMessage(self._new_id("msg"), len(self._response.output)))

    def _begin(self, item: OpenItem) -> bytes:
        self._open = item
        return self._frames(item.begin())

    def _end_item(self, status: ItemStatus) -> bytes:
        item, self._open = self._open, None
        if item is None:
            return b""
        self._update(output=[*self._response.output, item.item(status)])
        return self._frames(item.end(status))

    def _new_id(self, prefix: str) -> str:
        return item_id(prefix, self._response.id, "o", len(self._response.output))

    def _lifecycle(self, event: str) -> bytes:
        return self._frames([(event, {"response": self._response.model_dump()})])

    def _frames(self, events: Iterable[Event]) -> bytes:
        return b"".join(
            event_frame(f"response.{event}", self._next_number(), **fields) for event, fields in events
        )

    def _next_number(self) -> int:
        number = self._sequence_number
        self._sequence_number += 1
        return number


def event_frame(event: str, sequence_number: int, **fields: object) -> bytes:
    """Frame one event; its type stands both before and in its data."""
    data = encode_json({"type": event, "sequence_number": sequence_number, **fields})
    return b"event: " + event.encode() + b"\ndata: " + data + b"\n\n"


def error_frame(error: ErrorReply, sequence_number: int) -> bytes:
    """Frame an error twice over: flat, as it is documented, and as the object that makes SDKs raise."""
    fields = {"code": error.code or "server_error", "message": error.message, "param": error.param}
    return event_frame("error", sequence_number, **fields, error={"type": "server_error"} | fields)


def _encode_logprobs(logprobs: list[TokenLogprob]) -> str:
    return encode_json([item.model_dump() for item in logprobs]).decode() if logprobs else "[]"
