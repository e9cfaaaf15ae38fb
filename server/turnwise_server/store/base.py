"""What the routes may keep, as they see it: records and the three stores. It knows neither SQL nor files.

Everything has an owner, the `key_id` of a request (empty without keys). A method never tells, changes or deletes what
belongs to another owner: it answers as if that did not exist. JSON travels as text, and the stores never look into it.
Methods block; `api.storage` calls them in threads. Each may raise StoreError, and has then changed nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class StoredCompletion:
    """A chat completion that its client asked to store."""

    id: str
    """Ids sort by the time they were made; lists are in their order."""
    model: str
    body: str
    """JSON object: the reply as it was sent, without its metadata."""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CompletionQuery:
    """Which completions a list shows, and in which order."""

    limit: int
    after: str | None = None
    """The id that the list goes on from; it need not exist any more."""
    order: Literal["asc", "desc"] = "asc"
    model: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Pairs that a completion must have, all of them."""


class CompletionStore(Protocol):
    """Keeps chat completions until they are deleted."""

    def check(self) -> None:
        """Raise StoreError if nothing can be stored now."""

    def save(self, owner: str, completion: StoredCompletion, messages: Sequence[str]) -> None:
        """Keep a completion and the messages it replied to, each a JSON object. It is durable on return."""

    def get(self, owner: str, completion_id: str) -> StoredCompletion | None:
        """Return a completion, if there is one."""

    def messages(self, owner: str, completion_id: str) -> list[str] | None:
        """Return the messages that a completion replied to, if there is one."""

    def page(self, owner: str, query: CompletionQuery) -> tuple[list[StoredCompletion], bool]:
        """Return completions and whether there are more; fewer than `limit` if they are very large."""

    def set_metadata(
        self, owner: str, completion_id: str, metadata: Mapping[str, str]
    ) -> StoredCompletion | None:
        """Replace the metadata of a completion and return it, if there is one."""

    def delete(self, owner: str, completion_id: str) -> bool:
        """Delete a completion and say whether there was one."""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response as its routes show it."""

    id: str
    body: str
    """JSON object of the response."""
    input_items: str
    """JSON array of its input items, with their ids."""


class ResponseStore(Protocol):
    """Keeps responses, and the conversations that they continue."""

    def save(
        self,
        owner: str,
        response: StoredResponse,
        *,
        messages: Sequence[str],
        previous_id: str | None = None,
        history: Sequence[str] = (),
    ) -> None:
        """Keep a response and the messages it added to its conversation, each a JSON object.

        `history` is the conversation of `previous_id`. It is written only if that response is not in this store (any
        more), so that a conversation of n turns takes room for n turns and outlives each of its responses.
        """

    def update(self, owner: str, response_id: str, *, body: str, new_messages: Sequence[str] = ()) -> bool:
        """Replace the body of a response, add messages to its conversation, and say whether there is one."""

    def get(self, owner: str, response_id: str) -> StoredResponse | None:
        """Return a response, if there is one."""

    def conversation(self, owner: str, response_id: str) -> list[str] | None:
        """Return every message up to and with a response, oldest first, if there is one."""

    def delete(self, owner: str, response_id: str) -> bool:
        """Delete a response and say whether there was one. Those that continue it keep its messages."""


@dataclass(frozen=True, slots=True)
class Vote:
    """What a client thinks of one choice of a stored reply."""

    object_id: str
    """The chat completion or response."""
    choice: int
    rating: Literal["up", "down"]
    reasons: tuple[str, ...]
    comment: str | None
    model: str
    system_fingerprint: str | None
    """Names the checkpoint and program that wrote the reply, if the reply says."""
    created_at: int
    """In seconds since 1970."""
    idempotency_key: str | None = None


class FeedbackStore(Protocol):
    """Keeps votes as long as the replies they are about: one for each choice, the last one given."""

    def save(self, owner: str, vote: Vote) -> Vote | None:
        """Keep a vote in place of an earlier one, and return the one that stands, if its reply is stored.

        An earlier vote with the same idempotency key stands as it is.
        """

    def votes(self, owner: str, object_id: str) -> list[Vote]:
        """Return the votes on a reply, by choice."""

    def delete(self, owner: str, object_id: str) -> None:
        """Delete the votes on a reply."""
