"""Chat completions that were stored on request: list, read, change their metadata, delete, and their messages."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter
from pydantic import BeforeValidator, Field
from starlette.requests import Request
from starlette.responses import Response

from turnwise_server.api.chat_completions.request import ChatCompletionRequest, RequestMessage
from turnwise_server.api.errors import ApiError, not_found
from turnwise_server.api.gates.body import read_json_object
from turnwise_server.api.openapi import describe_errors, describe_json_body
from turnwise_server.api.paging import Page, PageQuery, describe_query, page_response, parse_query
from turnwise_server.api.reply import Reply
from turnwise_server.api.respond import json_response
from turnwise_server.api.services import services_of
from turnwise_server.api.storage import Storage
from turnwise_server.api.telemetry.request_log import record_of
from turnwise_server.api.validation import Metadata, RequestModel, Text, validate
from turnwise_server.api.wire import ChatCompletion, ChatCompletionDeleted, encode_json
from turnwise_server.store.base import CompletionQuery, StoredCompletion

router = APIRouter()

STORED_PARAMS = (
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "tools",
    "tool_choice",
    "response_format",
)
"""What a stored completion says of its request."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


class CompletionListQuery(PageQuery):
    """Which stored completions to list."""

    model: Text | None = None
    metadata: Metadata = Field(default_factory=dict)


class CompletionUpdate(RequestModel):
    """The only part of a stored completion that can change."""

    metadata: Annotated[Metadata, BeforeValidator(lambda value: {} if value is None else value)]


async def keep_completion(reply: Reply, chat: ChatCompletionRequest, body: bytes) -> None:
    """Store a finished reply. When this returns, a kill of the server does not lose it.

    Raises:
        StoreError: it cannot be stored.
    """
    record, storage = reply.record, reply.services.storage
    sent = chat.model_dump(mode="json", include=set(STORED_PARAMS), exclude_unset=True, by_alias=True)
    asked = dict.fromkeys(STORED_PARAMS) | sent
    extra = encode_json({"request_id": record.request_id, "input_user": chat.user} | asked)
    completion = StoredCompletion(
        id=reply.prepared.id,
        model=reply.model.name,
        body=f"{body[:-1].decode()},{extra[1:].decode()}",
        metadata=chat.metadata or {},
    )
    messages = [_message_json(message) for message in chat.messages]
    await storage.run(storage.completions.save, record.key_id, completion, messages)


@router.get(
    "/v1/chat/completions",
    response_model=Page,
    responses=describe_errors(400, 401, 403, 500, 503),
    openapi_extra=describe_query(CompletionListQuery),
)
async def list_chat_completions(request: Request) -> Response:
    """List the stored completions of the key, oldest first unless asked otherwise."""
    query = parse_query(CompletionListQuery, request)
    wanted = CompletionQuery(query.limit, query.after, query.order, query.model, query.metadata)
    storage, owner = _storage(request)
    found, has_more = await storage.run(storage.completions.page, owner, wanted)
    return page_response([(item.id, _json(item)) for item in found], has_more=has_more)


@router.get(
    "/v1/chat/completions/{completion_id}",
    response_model=ChatCompletion,
    responses=describe_errors(401, 403, 404, 500, 503),
)
async def retrieve_chat_completion(request: Request, completion_id: str) -> Response:
    """Return a stored completion, with its metadata and what was asked for."""
    storage, owner = _storage(request)
    found = await storage.run(storage.completions.get, owner, _checked(completion_id))
    return _response(found, completion_id)


@router.post(
    "/v1/chat/completions/{completion_id}",
    response_model=ChatCompletion,
    responses=describe_errors(400, 401, 403, 404, 408, 413, 415, 500, 503),
    openapi_extra=describe_json_body(CompletionUpdate),
)
async def update_chat_completion(request: Request, completion_id: str) -> Response:
    """Replace the metadata of a stored completion."""
    timeout_s = services_of(request).settings.request_timeout_s
    update = validate(CompletionUpdate, await read_json_object(request, timeout_s=timeout_s))
    storage, owner = _storage(request)
    set_metadata = storage.completions.set_metadata
    found = await storage.run(set_metadata, owner, _checked(completion_id), update.metadata)
    return _response(found, completion_id)


@router.delete(
    "/v1/chat/completions/{completion_id}",
    response_model=ChatCompletionDeleted,
    responses=describe_errors(401, 403, 404, 500, 503),
)
async def delete_chat_completion(request: Request, completion_id: str) -> Response:
    """Delete a stored completion with its messages and metadata."""
    storage, owner = _storage(request)
    if not await storage.run(storage.completions.delete, owner, _checked(completion_id)):
        raise _not_found(completion_id)
    return json_response(ChatCompletionDeleted(id=completion_id).model_dump())


@router.get(
    "/v1/chat/completions/{completion_id}/messages",
    response_model=Page,
    responses=describe_errors(400, 401, 403, 404, 500, 503),
    openapi_extra=describe_query(PageQuery),
)
async def list_chat_completion_messages(request: Request, completion_id: str) -> Response:
    """List the messages that a stored completion replied to."""
    query = parse_query(PageQuery, request)
    storage, owner = _storage(request)
    messages = await storage.run(storage.completions.messages, owner, _checked(completion_id))
    if messages is None:
        raise _not_found(completion_id)
    ids = [f"{completion_id}-{index}" for index in range(len(messages))]
    items = [
        (message_id, f'{{"id":"{message_id}",{message[1:]}')
        for message_id, message in zip(ids, messages, strict=True)
    ]
    if query.order == "desc":
        items.reverse()
    start = next((at for at, (message_id, _) in enumerate(items, 1) if message_id == query.after), 0)
    page = items[start : start + query.limit]
    return page_response(page, has_more=start + len(page) < len(items))


def _storage(request: Request) -> tuple[Storage, str]:
    """Return the stores, and whose objects the request may see."""
    return services_of(request).storage, record_of(request.scope).key_id


def _checked(completion_id: str) -> str:
    """Refuse what cannot be an id before a database sees it.

    Raises:
        ApiError: 404 not_found.
    """
    if not _ID.fullmatch(completion_id):
        raise _not_found(completion_id)
    return completion_id


def _not_found(completion_id: str) -> ApiError:
    return ApiError(not_found("Chat completion", completion_id))


def _response(found: StoredCompletion | None, completion_id: str) -> Response:
    if found is None:
        raise _not_found(completion_id)
    return Response(_json(found), media_type="application/json")


def _json(completion: StoredCompletion) -> str:
    """Return a completion with its metadata; the reply in it is sent as it was stored."""
    return f'{completion.body[:-1]},"metadata":{encode_json(completion.metadata).decode()}}}'


def _message_json(message: RequestMessage) -> str:
    """Write a message as OpenAI stores it: the text of its parts, and the parts themselves."""
    sent = message.model_dump(mode="json", exclude_none=True, by_alias=True)
    content, parts = sent.get("content"), None
    if isinstance(content, list):
        parts = content
        content = "\n".join(part["text"] for part in parts if "text" in part)
    return encode_json(sent | {"content": content, "content_parts": parts}).decode()
