"""The stored responses that one client may see: where they are kept, what they say, and how they are continued."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from turnwise_server.api.errors import ApiError, ErrorReply, not_found, shorten
from turnwise_server.api.responses.items import Item
from turnwise_server.api.responses.wire import ModelResponse, ResponseError
from turnwise_server.api.storage import Storage
from turnwise_server.api.wire import encode_json
from turnwise_server.store.base import ResponseStore, StoredResponse

_ID = re.compile(r"resp_[A-Za-z0-9]{1,100}")
_LOST = "The server ended before the response did."


@dataclass(frozen=True, slots=True)
class KeptResponses:
    """The responses of one owner."""

    storage: Storage
    owner: str

    async def get(self, response_id: str) -> StoredResponse | None:
        """Return a response, if there is one.

        Raises:
            StoreError: the database cannot be read.
        """
        for store in self._stores(response_id):
            found = await self.storage.run(store.get, self.owner, response_id)
            if found is not None:
                return found
        return None

    async def find(self, response_id: str) -> StoredResponse:
        """Return a response.

        Raises:
            ApiError: 404 not_found.
            StoreError: the database cannot be read.
        """
        found = await self.get(response_id)
        if found is None:
            raise ApiError(not_found("Response", response_id))
        return found

    async def conversation(self, response_id: str) -> list[str]:
        """Return the items of a conversation up to and with a response, oldest first, each as JSON.

        Raises:
            ApiError: 400 previous_response_not_found.
            StoreError: the database cannot be read.
        """
        for store in self._stores(response_id):
            found = await self.storage.run(store.conversation, self.owner, response_id)
            if found is not None:
                return found
        raise ApiError(previous_response_not_found(response_id))

    async def save(
        self, response: ModelResponse, items: Sequence[Item], history: Sequence[str], *, durable: bool
    ) -> None:
        """Keep a response, and what it adds to its conversation: its input, and its output if it has ended.

        Raises:
            StoreError: it cannot be stored.
        """
        messages = [_json(item) for item in items] + _output_messages(response)
        stored = StoredResponse(response.id, _json(response.model_dump()), _json(list(items)))
        store = self.storage.responses if durable else self.storage.recent_responses
        await self.storage.run(
            store.save,
            self.owner,
            stored,
            messages=messages,
            previous_id=response.previous_response_id,
            history=history,
        )

    async def settle(self, response: ModelResponse) -> None:
        """Keep the end of a response that was kept before it had one. One deleted meanwhile stays deleted.

        Raises:
            StoreError: it cannot be stored.
        """
        body, new = _json(response.model_dump()), _output_messages(response)
        for store in self._stores(response.id):
            update = store.update
            if await self.storage.run(update, self.owner, response.id, body=body, new_messages=new):
                return

    async def delete(self, response_id: str) -> None:
        """Delete a response; those that continue it keep what it said.

        Raises:
            ApiError: 404 not_found.
            StoreError: the database cannot be changed.
        """
        for store in self._stores(response_id):
            if await self.storage.run(store.delete, self.owner, response_id):
                return
        raise ApiError(not_found("Response", response_id))

    def _stores(self, response_id: str) -> tuple[ResponseStore, ...]:
        """Return where to look; nowhere for what cannot be an id."""
        is_possible = _ID.fullmatch(response_id) is not None
        return (self.storage.recent_responses, self.storage.responses) if is_possible else ()


def is_unfinished(body: Item) -> bool:
    """Say whether a stored response has no end yet."""
    return body["status"] in ("queued", "in_progress")


def lost(body: Item) -> ModelResponse:
    """Return an unfinished response as it has to be said to have ended, when nobody works on it any more."""
    error = ResponseError(message=_LOST)
    return ModelResponse.model_validate(body).model_copy(update={"status": "failed", "error": error})


def previous_response_not_found(response_id: str) -> ErrorReply:
    """There is nothing to continue."""
    return ErrorReply(
        400,
        f"Previous response with id '{shorten(response_id)}' not found.",
        code="previous_response_not_found",
        param="previous_response_id",
    )


def _output_messages(response: ModelResponse) -> list[str]:
    """Return what a response adds to its conversation; nothing if it broke off."""
    if response.status not in ("completed", "incomplete"):
        return []
    return [_json(_without_logprobs(item.model_dump())) for item in response.output]


def _without_logprobs(item: Item) -> Item:
    """Leave out of a message what takes much room and nobody reads again."""
    if item["type"] != "message":
        return item
    return item | {
        "content": [part | {"logprobs": []} if "logprobs" in part else part for part in item["content"]]
    }


def _json(value: object) -> str:
    return encode_json(value).decode()
