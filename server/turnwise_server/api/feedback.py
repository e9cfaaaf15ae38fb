"""Thumbs: a vote on each choice of a stored chat completion or response, with reasons and a comment."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from turnwise_server.api.errors import ApiError, ErrorReply, shorten
from turnwise_server.api.gates.body import read_json_object
from turnwise_server.api.openapi import describe_errors, describe_json_body
from turnwise_server.api.respond import json_response
from turnwise_server.api.services import services_of
from turnwise_server.api.storage import Storage
from turnwise_server.api.telemetry.request_log import record_of
from turnwise_server.api.validation import NoNul, RequestModel, Text, validate
from turnwise_server.errors import RequestError
from turnwise_server.store.base import StoredCompletion, StoredResponse, Vote

router = APIRouter()

_COMPLETION_ID = re.compile(r"chatcmpl-[A-Za-z0-9_-]{1,119}")
_RESPONSE_ID = re.compile(r"resp_[A-Za-z0-9]{1,100}")


class FeedbackRequest(RequestModel):
    """A vote; null counts as not sent."""

    id: Text
    """The chat completion or response."""
    choice: Annotated[int, Field(ge=0)] | None = None
    """Which of its choices; the first by default."""
    rating: Literal["up", "down"]
    reasons: (
        Annotated[list[Annotated[str, Field(min_length=1, max_length=64), NoNul]], Field(max_length=16)]
        | None
    ) = None
    comment: Annotated[str, Field(max_length=4096), NoNul] | None = None
    idempotency_key: Annotated[str, Field(min_length=1, max_length=128), NoNul] | None = None
    """Sent again, it changes nothing while the vote that it came with stands."""


class Feedback(BaseModel):
    """A vote as it stands."""

    id: str
    object: Literal["feedback"] = "feedback"
    choice: int
    rating: Literal["up", "down"]
    reasons: list[str]
    comment: str | None
    model: str
    system_fingerprint: str | None
    created_at: int


class FeedbackList(BaseModel):
    """The votes on a reply, at most one for each of its choices."""

    object: Literal["list"] = "list"
    data: list[Feedback]


class FeedbackDeleted(BaseModel):
    """A reply on which there is no vote any more."""

    id: str
    object: Literal["feedback.deleted"] = "feedback.deleted"
    deleted: Literal[True] = True


@router.post(
    "/v1/feedback",
    response_model=Feedback,
    responses=describe_errors(400, 401, 403, 404, 408, 413, 415, 500, 503),
    openapi_extra=describe_json_body(FeedbackRequest),
)
async def give_feedback(request: Request) -> Response:
    """Vote on a choice of a stored reply, in place of an earlier vote on it."""
    services = services_of(request)
    body = await read_json_object(request, timeout_s=services.settings.request_timeout_s)
    asked = validate(FeedbackRequest, body)
    replies = _replies(request)
    reply = json.loads(await replies.body(asked.id))
    vote = _vote(asked, reply)
    storage = replies.storage
    standing = await storage.run(storage.feedback.save, replies.owner, vote)
    if standing is None:
        raise _not_stored(asked.id)
    if _is_refused(reply, standing.choice):
        services.metrics.safety.refusal_voted(standing.rating)
    return json_response(_wire(standing).model_dump())


@router.get(
    "/v1/feedback/{reply_id}",
    response_model=FeedbackList,
    responses=describe_errors(401, 403, 404, 500, 503),
)
async def retrieve_feedback(request: Request, reply_id: str) -> Response:
    """Return the votes on a stored reply, by choice."""
    replies = _replies(request)
    await replies.body(reply_id)
    votes = await replies.storage.run(replies.storage.feedback.votes, replies.owner, reply_id)
    return json_response(FeedbackList(data=[_wire(vote) for vote in votes]).model_dump())


@router.delete(
    "/v1/feedback/{reply_id}",
    response_model=FeedbackDeleted,
    responses=describe_errors(401, 403, 404, 500, 503),
)
async def delete_feedback(request: Request, reply_id: str) -> Response:
    """Delete the votes on a stored reply, if there are any."""
    replies = _replies(request)
    await replies.body(reply_id)
    await replies.storage.run(replies.storage.feedback.delete, replies.owner, reply_id)
    return json_response(FeedbackDeleted(id=reply_id).model_dump())


@dataclass(frozen=True, slots=True)
class _StoredReplies:
    """What one owner can vote on."""

    storage: Storage
    owner: str

    async def body(self, reply_id: str) -> str:
        """Return a chat completion or response as JSON.

        Raises:
            ApiError: 404 not_found.
            StoreError: the database cannot be read.
        """
        found: StoredCompletion | StoredResponse | None = None
        if _COMPLETION_ID.fullmatch(reply_id):
            found = await self.storage.run(self.storage.completions.get, self.owner, reply_id)
        elif _RESPONSE_ID.fullmatch(reply_id):
            found = await self.storage.run(self.storage.responses.get, self.owner, reply_id)
        if found is None:
            raise _not_stored(reply_id)
        return found.body


def _replies(request: Request) -> _StoredReplies:
    return _StoredReplies(services_of(request).storage, record_of(request.scope).key_id)


def _vote(asked: FeedbackRequest, reply: dict[str, Any]) -> Vote:
    """Return the vote with what the reply says of its origin.

    Raises:
        RequestError: the reply has no such choice.
    """
    choice = asked.choice or 0
    last = len(reply.get("choices", ("a response",))) - 1
    if choice > last:
        raise RequestError(
            f"Invalid 'choice': integer above maximum value. Expected a value <= {last}, "
            f"but got {shorten(str(choice), 40)} instead.",
            param="choice",
            code="integer_above_max_value",
        )
    return Vote(
        object_id=asked.id,
        choice=choice,
        rating=asked.rating,
        reasons=tuple(asked.reasons or ()),
        comment=asked.comment,
        model=reply["model"],
        system_fingerprint=reply.get("system_fingerprint"),
        created_at=int(time.time()),
        idempotency_key=asked.idempotency_key,
    )


def _is_refused(reply: dict[str, Any], choice: int) -> bool:
    """Return whether the policy refused a choice of a chat completion, or a message of a response."""
    if "choices" in reply:
        return "x_refusal" in reply["choices"][choice]
    return any("x_refusal" in item for item in reply.get("output", ()))


def _wire(vote: Vote) -> Feedback:
    return Feedback(
        id=vote.object_id,
        choice=vote.choice,
        rating=vote.rating,
        reasons=list(vote.reasons),
        comment=vote.comment,
        model=vote.model,
        system_fingerprint=vote.system_fingerprint,
        created_at=vote.created_at,
    )


def _not_stored(reply_id: str) -> ApiError:
    message = f"Stored reply with id '{shorten(reply_id)}' not found."
    hint = "Only stored replies can be rated: send 'store': true with the request that makes them."
    return ApiError(ErrorReply(404, f"{message} {hint}", code="not_found"))
