"""What a request continues: the conversation before it, and the kept items that it refers to."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from turnwise_server.api.errors import ApiError, ErrorReply, shorten
from turnwise_server.api.responses.background import BackgroundReplies
from turnwise_server.api.responses.items import InputItem, Item, ItemReference, response_of
from turnwise_server.api.responses.request import PromptRequest
from turnwise_server.api.responses.storage import KeptResponses
from turnwise_server.errors import RequestError

MAX_REFERRED = 64
"""Item references may lead to this many responses, each of which has to be read."""


@dataclass(frozen=True, slots=True)
class Past:
    """Conversation and items, as they are stored."""

    history: list[str] = field(default_factory=list)
    """The items of the conversation so far, each as JSON."""
    referenced: dict[str, Item] = field(default_factory=dict)
    """What the item references of the input mean, by id."""

    def items(self) -> list[Item]:
        """Return the conversation so far."""
        return [json.loads(line) for line in self.history]


async def read_past(
    request: PromptRequest, kept: KeptResponses, running: BackgroundReplies, *, max_items: int
) -> Past:
    """Read what a request continues.

    Raises:
        RequestError: the previous response has not ended, or the conversation has more than `max_items`.
        ApiError: 400 previous_response_not_found; 404 not_found for an item.
        StoreError: the database cannot be read.
    """
    items = request.input if isinstance(request.input, list) else []
    previous = request.previous_response_id
    if previous is None:
        return Past(referenced=await _referenced(items, kept))
    if running.running(kept.owner, previous) is not None:
        raise RequestError(
            "The previous response is still being made; it can be continued once it has ended.",
            param="previous_response_id",
            code="invalid_value",
        )
    history = await kept.conversation(previous)
    if len(history) + len(items) > max_items:
        raise RequestError(
            f"The conversation has become too long: this server reads at most {max_items} items.",
            param="previous_response_id",
            code="array_above_max_length",
        )
    return Past(history, await _referenced(items, kept))


async def _referenced(items: Iterable[InputItem], kept: KeptResponses) -> dict[str, Item]:
    """Look up every item that the input refers to; each response is read once."""
    found: dict[str, Item] = {}
    read: set[str] = set()
    for index, item in enumerate(items):
        if not isinstance(item, ItemReference):
            continue
        response_id = response_of(item.id)
        if response_id is not None and response_id not in read:
            if len(read) == MAX_REFERRED:
                raise RequestError(
                    f"The input refers to items of more than {MAX_REFERRED} responses.",
                    param=f"input[{index}].id",
                    code="invalid_value",
                )
            read.add(response_id)
            found |= await _items_of(response_id, kept)
        if item.id not in found:
            raise ApiError(_item_not_found(item.id, f"input[{index}].id"))
    return found


async def _items_of(response_id: str, kept: KeptResponses) -> dict[str, Item]:
    stored = await kept.get(response_id)
    if stored is None:
        return {}
    items = [*json.loads(stored.input_items), *json.loads(stored.body)["output"]]
    return {item["id"]: item for item in items}


def _item_not_found(item_id: str, param: str) -> ErrorReply:
    return ErrorReply(404, f"Item with id '{shorten(item_id)}' not found.", code="not_found", param=param)
