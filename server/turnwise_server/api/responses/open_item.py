"""The output item that is being written, a message or a call: what begins, grows and ends it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from turnwise_server.api.responses.wire import FunctionCall, ItemStatus, OutputItem, OutputMessage, OutputText
from turnwise_server.api.wire import TokenLogprob

Event = tuple[str, dict[str, Any]]
"""The type of an event (after `response.`) and its own fields."""


class OpenItem(Protocol):
    """What messages and calls have in common."""

    id: str
    index: int
    """Its place in the output."""

    def item(self, status: ItemStatus) -> OutputItem:
        """Return the item as far as it is written."""
        ...

    def begin(self) -> Iterable[Event]:
        """Return the events that come before its first piece."""
        ...

    def end(self, status: ItemStatus) -> Iterable[Event]:
        """Return the events that come after its last piece."""
        ...


@dataclass(slots=True)
class OpenMessage:
    """A message that is being written."""

    id: str
    index: int
    texts: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)

    def item(self, status: ItemStatus) -> OutputMessage:
        """Return the message as far as it is written."""
        return OutputMessage(id=self.id, status=status, content=[self._part()])

    def begin(self) -> Iterable[Event]:
        """Announce the message, then its text."""
        item = self.item("in_progress").model_dump() | {"content": []}
        yield "output_item.added", {"output_index": self.index, "item": item}
        yield "content_part.added", self._place() | {"part": self._part().model_dump()}

    def end(self, status: ItemStatus) -> Iterable[Event]:
        """Repeat all of its text, then of the message."""
        part = self._part().model_dump()
        yield "output_text.done", self._place() | {"text": part["text"], "logprobs": part["logprobs"]}
        yield "content_part.done", self._place() | {"part": part}
        yield "output_item.done", {"output_index": self.index, "item": self.item(status).model_dump()}

    def _part(self) -> OutputText:
        return OutputText(logprobs=self.logprobs, text="".join(self.texts))

    def _place(self) -> dict[str, Any]:
        return {"item_id": self.id, "output_index": self.index, "content_index": 0}


@dataclass(slots=True)
class OpenCall:
    """A call of a function that is being written."""

    id: str
    index: int
    call_id: str
    name: str
    arguments: list[str] = field(default_factory=list)

    def item(self, status: ItemStatus) -> FunctionCall:
        """Return the call as far as it is written."""
        return FunctionCall(
            id=self.id,
            status=status,
            arguments="".join(self.arguments),
            call_id=self.call_id,
            name=self.name,
        )

    def begin(self) -> Iterable[Event]:
        """Announce the call."""
        item = self.item("in_progress").model_dump()
        yield "output_item.added", {"output_index": self.index, "item": item}

    def more(self, arguments: str) -> Event:
        """Take more of its arguments."""
        self.arguments.append(arguments)
        fields = {"item_id": self.id, "output_index": self.index, "delta": arguments}
        return "function_call_arguments.delta", fields

    def end(self, status: ItemStatus) -> Iterable[Event]:
        """Repeat all of its arguments, then of the call."""
        item = self.item(status).model_dump()
        place = {"item_id": self.id, "output_index": self.index}
        yield "function_call_arguments.done", place | {"arguments": item["arguments"], "name": self.name}
        yield "output_item.done", {"output_index": self.index, "item": item}
