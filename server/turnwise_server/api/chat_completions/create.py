"""POST /v1/chat/completions: reply to a conversation, whole or as a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from turnwise_server.api.admission import Admission, reply_headers
from turnwise_server.api.chat_completions.moderation import check_moderation, moderation_of
from turnwise_server.api.chat_completions.reply import ChunkWriter, ReplyIdentity, WholeReply, usage_of
from turnwise_server.api.chat_completions.request import (
    ChatCompletionRequest,
    parse_chat_request,
    turn_request,
)
from turnwise_server.api.chat_completions.stored import keep_completion
from turnwise_server.api.errors import ErrorReply
from turnwise_server.api.models.served import ServedModel
from turnwise_server.api.moderations.wire import ReplyModeration
from turnwise_server.api.openapi import describe_errors, describe_json_body, describe_stream
from turnwise_server.api.reply import Reply, StreamedReply
from turnwise_server.api.services import new_id
from turnwise_server.api.sse import DONE, data_frame
from turnwise_server.api.wire import ChatCompletion, ChatCompletionChunk
from turnwise_server.chat.turn import PreparedTurn

router = APIRouter()


@router.post(
    "/v1/chat/completions",
    response_model=ChatCompletion,
    responses=describe_stream(ChatCompletionChunk)
    | describe_errors(400, 401, 403, 404, 408, 413, 415, 429, 500, 503, 504),
    openapi_extra=describe_json_body(ChatCompletionRequest),
)
async def create_chat_completion(request: Request) -> Response:
    """Reply to a conversation, whole or as server-sent events."""
    admission = await Admission.of(request)
    ignored = admission.ignored_params(ChatCompletionRequest)
    # Always in a thread: one tokenizer serves all, and waiting for it must not stall the streams that run.
    chat, model, prepared = await asyncio.to_thread(_prepare, admission)
    if chat.store:
        storage = admission.services.storage
        await storage.run(storage.completions.check)
    reply = await admission.start(
        model, prepared, blocks=chat.moderation.blocks if chat.moderation else frozenset()
    )
    headers = reply_headers(prepared, ignored)
    if chat.stream:
        return StreamedReply(reply, _frames(reply, chat), failure_frame, headers)
    return await reply.whole(_body(reply, chat), request.receive, headers)


def _prepare(admission: Admission) -> tuple[ChatCompletionRequest, ServedModel, PreparedTurn]:
    """Do all that can be done, and refuse all that can be refused, without the engine."""
    settings = admission.services.settings
    chat = parse_chat_request(admission.body, max_messages=settings.max_messages)
    check_moderation(chat.moderation, admission.layer)
    model = admission.hold_model(chat.model, streams=bool(chat.stream))
    turn = turn_request(
        chat,
        id=new_id("chatcmpl-"),
        tenant=admission.record.key_id,
        default_max_tokens=settings.default_max_tokens,
        default_truncation=settings.truncation,
    )
    return chat, model, admission.prepare(model, turn)


async def _body(reply: Reply, chat: ChatCompletionRequest) -> bytes:
    whole = WholeReply(identity_of(reply), n=reply.prepared.n, has_logprobs=bool(chat.logprobs))
    async for event in reply.events():
        whole.add(event)
    return await _finish(reply, chat, whole)


async def _finish(reply: Reply, chat: ChatCompletionRequest, whole: WholeReply) -> bytes:
    """Return the JSON of a reply that has ended, stored if its client asked for that."""
    body = whole.body(usage_of(reply.prepared, reply.turn), _moderation(reply, chat))
    if chat.store:
        await keep_completion(reply, chat, body)
    return body


async def _frames(reply: Reply, chat: ChatCompletionRequest) -> AsyncIterator[bytes]:
    writer = ChunkWriter(identity_of(reply), includes_usage=chat.includes_usage)
    whole = WholeReply(identity_of(reply), n=reply.prepared.n, has_logprobs=bool(chat.logprobs))
    yield writer.opening(reply.prepared.n)
    async for event in reply.events():
        if chat.store:
            whole.add(event)
        yield writer.event(event)
    if chat.store:
        await _finish(reply, chat, whole)
    moderation = _moderation(reply, chat)
    scores = writer.moderation(moderation) if moderation else b""
    usage = writer.usage(usage_of(reply.prepared, reply.turn)) if chat.includes_usage else b""
    yield scores + usage + DONE


def _moderation(reply: Reply, chat: ChatCompletionRequest) -> ReplyModeration | None:
    """Return what the detectors said, if the client asked for it."""
    if chat.moderation is None:
        return None
    assert reply.guarded is not None, "moderation was promised where nothing is judged"
    return moderation_of(reply.guarded, n=reply.prepared.choices)


def failure_frame(error: ErrorReply) -> bytes:
    """Return the frame that ends a broken stream of chat or text completions: an error, and no [DONE]."""
    return data_frame(replace(error, type="server_error").body())


def identity_of(reply: Reply) -> ReplyIdentity:
    """Return what is the same in every frame of a reply."""
    return ReplyIdentity(
        id=reply.prepared.id,
        created=reply.record.created,
        model=reply.model.name,
        system_fingerprint=reply.model.system_fingerprint,
    )
