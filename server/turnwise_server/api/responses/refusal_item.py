"""A refusal as an item of a response's output: the message, and the events that tell it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from turnwise_server.api.refusal.refused import Refused
from turnwise_server.api.responses.open_item import Event
from turnwise_server.api.responses.wire import OutputMessage, OutputRefusal, OutputText
from turnwise_server.api.wire import RefusalSignal


def refusal_message(refused: Refused, item_id: str) -> OutputMessage:
    """Return the message that is all of a refused response's output.

    It has one part, in the style `both` too: clients show or send back the parts of a message one after the other.
    """
    part = OutputRefusal(refusal=refused.text) if refused.style == "field" else OutputText(text=refused.text)
    return OutputMessage(
        id=item_id,
        status="completed" if refused.finish_reason == "stop" else "incomplete",
        content=[part],
        x_refusal=RefusalSignal.model_validate(refused.signal),
    )


def refusal_events(message: OutputMessage, output_index: int, *, retracts: bool) -> Iterable[Event]:
    """Yield the events of a refusal; where it `retracts`, the first takes back the items before it."""
    (part,) = message.content
    item = message.model_dump()
    place = {"item_id": message.id, "output_index": output_index, "content_index": 0}
    if isinstance(part, OutputText):
        kind, key, text, extra = "output_text", "text", part.text, {"logprobs": part.logprobs}
    else:
        kind, key, text, extra = "refusal", "refusal", part.refusal, {}
    empty = part.model_copy(update={key: ""}).model_dump()
    retraction = {"x_moderation": {"retract": True}} if retracts else {}
    opening = item | {"status": "in_progress", "content": []}
    yield "output_item.added", {"output_index": output_index, "item": opening} | retraction
    yield "content_part.added", place | {"part": empty}
    yield f"{kind}.delta", place | {"delta": text} | extra
    yield f"{kind}.done", place | {key: text} | extra
    yield "content_part.done", place | {"part": part.model_dump()}
    yield "output_item.done", {"output_index": output_index, "item": item}
