"""The items of a response's input: what clients may send, and the one form in which they are stored and listed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from turnwise_server.api.chat_completions.request import MAX_PARTS
from turnwise_server.api.validation import NoNul, RequestModel, Text, fault, string_or_array

Item = dict[str, Any]
"""An item as it is stored and listed: OpenAI's JSON with every field."""

_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco"}
_OWN_ID = re.compile(r"[a-z]{2,3}_(?P<response>[A-Za-z0-9]+)(?:i|o)[0-9]{1,9}")

ItemId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")]
CallName = Annotated[str, Field(min_length=1, max_length=256), NoNul]
TextKind = Literal["input_text", "output_text"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


def item_id(prefix: str, response_id: str, side: Literal["i", "o"], index: int) -> str:
    """Name the item at `index` of a response's input or output, so that the name leads back to the response."""
    return f"{prefix}_{response_id.removeprefix('resp_')}{side}{index}"


def response_of(reference: str) -> str | None:
    """Return the id of the response that an item belongs to, or None for an item that is not one of ours."""
    match = _OWN_ID.fullmatch(reference)
    return match and f"resp_{match['response']}"


def _refused(_value: object) -> object:
    raise fault(
        "unsupported_value", "Unsupported value: '{param}' supports only text with this model, not this type."
    )


def _tag(*known: str, default: str | None = None) -> Discriminator:
    """Choose a branch of a union by `type`. What is no object goes to the first branch, which says so."""

    def choose(value: object) -> str:
        if not isinstance(value, Mapping):
            return known[0]
        kind = value.get("type", default) or default
        return kind if isinstance(kind, str) and kind in known else "other"

    return Discriminator(choose)


class UnknownType(RequestModel):
    """An item or part of a type that this server does not read."""

    type: Annotated[object, AfterValidator(_refused)]


class TextPart(RequestModel):
    """Text of a user, or of an earlier reply."""

    type: Literal["input_text", "output_text"]
    text: Text


class RefusalPart(RequestModel):
    """An earlier refusal."""

    type: Literal["refusal"]
    refusal: Text


Part = Annotated[
    Annotated[TextPart, Tag("input_text")]
    | Annotated[TextPart, Tag("output_text")]
    | Annotated[RefusalPart, Tag("refusal")]
    | Annotated[UnknownType, Tag("other")],
    _tag("input_text", "output_text", "refusal"),
]
Parts = Annotated[list[Part], Field(max_length=MAX_PARTS, fail_fast=True)]
Content = Annotated[
    Annotated[Text, Tag("string")] | Annotated[Parts, Tag("array")], string_or_array("objects")
]


class MessageItem(RequestModel):
    """A message of a user or an earlier reply; `type` may be left out."""

    type: Literal["message"] | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    id: ItemId | None = None
    status: ItemStatus | None = None


class FunctionCallItem(RequestModel):
    """A call that an earlier reply made."""

    type: Literal["function_call"]
    call_id: CallName
    name: CallName
    arguments: Text
    id: ItemId | None = None
    status: ItemStatus | None = None


class FunctionCallOutputItem(RequestModel):
    """What a call gave."""

    type: Literal["function_call_output"]
    call_id: CallName
    output: Content
    id: ItemId | None = None
    status: ItemStatus | None = None


class ItemReference(RequestModel):
    """An item that the server has kept."""

    type: Literal["item_reference"]
    id: ItemId


InputItem = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[FunctionCallOutputItem, Tag("function_call_output")]
    | Annotated[ItemReference, Tag("item_reference")]
    | Annotated[UnknownType, Tag("other")],
    _tag("message", "function_call", "function_call_output", "item_reference", default="message"),
]


def stored_items(
    items: str | Iterable[InputItem] | None, response_id: str, referenced: Mapping[str, Item]
) -> list[Item]:
    """Return input in its stored form; `referenced` holds what item references mean.

    An item keeps the id that its client gave it, unless one before it has the same: lists are paged by ids.
    """
    if isinstance(items, str):
        items = [MessageItem(role="user", content=items)]
    stored: dict[str, Item] = {}
    for index, item in enumerate(items or ()):
        form = referenced[item.id] if isinstance(item, ItemReference) else _stored(item)
        if form["id"] is None or form["id"] in stored:
            form = form | {"id": item_id(_PREFIXES[form["type"]], response_id, "i", index)}
        stored[form["id"]] = form
    return list(stored.values())


def _stored(item: InputItem) -> Item:
    match item:
        case MessageItem():
            kind: TextKind = "output_text" if item.role == "assistant" else "input_text"
            content = _parts(item.content, kind)
            return _head(item) | {"role": item.role, "content": content}
        case FunctionCallItem():
            return _head(item) | {"arguments": item.arguments, "call_id": item.call_id, "name": item.name}
        case FunctionCallOutputItem():
            output = item.output if isinstance(item.output, str) else _parts(item.output, "input_text")
            return _head(item) | {"call_id": item.call_id, "output": output}
    raise AssertionError(f"validation lets no {type(item).__name__} through")


def _head(item: MessageItem | FunctionCallItem | FunctionCallOutputItem) -> Item:
    return {"id": item.id, "type": item.type or "message", "status": "completed"}


def _parts(content: str | Iterable[object], kind: TextKind) -> list[Item]:
    if isinstance(content, str):
        return [_text_part(content, kind)]
    return [
        _text_part(part.text, kind)
        if isinstance(part, TextPart)
        else {"type": "refusal", "refusal": part.refusal}
        for part in content
        if isinstance(part, TextPart | RefusalPart)
    ]


def _text_part(text: str, kind: TextKind) -> Item:
    extra: Item = {"annotations": [], "logprobs": []} if kind == "output_text" else {}
    return {"type": kind, "text": text} | extra
