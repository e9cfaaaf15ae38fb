"""The items of a response's input: what clients may send, and the one form in which they are stored and listed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from turnwise_server.api.chat_request import MAX_PARTS
from turnwise_server.api.validation import NoNul, RequestModel, Text, fault, string_or_array

Item = dict[str, Any]
"""An item as it is stored and listed: OpenAI's JSON with every field."""

_OWN_ID = re.compile(r"[a-z]{2,3}_(?P<response>[A-Za-z0-9]+)(?:i|o)[0-9]{1,9}")

ItemId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")]
CallName = Annotated[str, Field(min_length=1, max_length=256), NoNul]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


def item_id(
    prefix: Literal["msg", "fc", "fco"], response_id: str, side: Literal["i", "o"], index: int
) -> str:
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
    items: str | Iterable[InputItem], response_id: str, referenced: Mapping[str, Item]
) -> list[Item]:
    """Return input in its stored form; `referenced` holds what item references mean."""
    if isinstance(items, str):
        items = [MessageItem(role="user", content=items)]
    return [_stored(item, response_id, index, referenced) for index, item in enumerate(items)]


def _stored(item: InputItem, response_id: str, index: int, referenced: Mapping[str, Item]) -> Item:
    match item:
        case MessageItem():
            own_id = item.id or item_id("msg", response_id, "i", index)
            content = _parts(item.content, "output_text" if item.role == "assistant" else "input_text")
            return {
                "id": own_id,
                "type": "message",
                "status": "completed",
                "role": item.role,
                "content": content,
            }
        case FunctionCallItem():
            own_id = item.id or item_id("fc", response_id, "i", index)
            call = {"arguments": item.arguments, "call_id": item.call_id, "name": item.name}
            return {"id": own_id, "type": "function_call", "status": "completed", **call}
        case FunctionCallOutputItem():
            own_id = item.id or item_id("fco", response_id, "i", index)
            output = item.output if isinstance(item.output, str) else _parts(item.output, "input_text")
            result = {"call_id": item.call_id, "output": output}
            return {"id": own_id, "type": "function_call_output", "status": "completed", **result}
        case ItemReference():
            return referenced[item.id]
    raise AssertionError(f"validation lets no {type(item).__name__} through")


def _parts(content: str | Iterable[object], kind: Literal["input_text", "output_text"]) -> list[Item]:
    if isinstance(content, str):
        return [_text_part(content, kind)]
    return [
        _text_part(part.text, kind)
        if isinstance(part, TextPart)
        else {"type": "refusal", "refusal": part.refusal}
        for part in content
        if isinstance(part, TextPart | RefusalPart)
    ]


def _text_part(text: str, kind: Literal["input_text", "output_text"]) -> Item:
    extra: Item = {"annotations": [], "logprobs": []} if kind == "output_text" else {}
    return {"type": kind, "text": text} | extra
