"""POST /v1/messages and /v1/messages/count_tokens: what clients of Anthropic's API speak."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from turnwise_server.api.admission import Admission, ignored_params_header, reply_headers
from turnwise_server.api.anthropic.errors import AnthropicErrorBody, error_frame
from turnwise_server.api.anthropic.reply import (
    AnthropicMessage,
    MessageFrames,
    MessageStreamEvent,
    WholeMessage,
    usage_of,
)
from turnwise_server.api.anthropic.request import (
    CountTokensRequest,
    MessagesRequest,
    messages_turn,
    parse_count_request,
    parse_messages_request,
)
from turnwise_server.api.anthropic.tools import tool_use
from turnwise_server.api.models.served import ServedModel
from turnwise_server.api.openapi import describe_json_body, describe_stream
from turnwise_server.api.reply import Reply, StreamedReply
from turnwise_server.api.respond import json_response
from turnwise_server.api.services import new_id
from turnwise_server.chat.turn import PreparedTurn
from turnwise_server.errors import RequestError

router = APIRouter()


class TokenCount(BaseModel):
    """How long a prompt is."""

    input_tokens: int


def _describe_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    declared: list[int | str] = [*statuses, "default"]
    return {status: {"model": AnthropicErrorBody} for status in declared}


@router.post(
    "/v1/messages",
    response_model=AnthropicMessage,
    responses=describe_stream(MessageStreamEvent)
    | _describe_errors(400, 401, 403, 404, 408, 413, 415, 429, 500, 503, 504),
    openapi_extra=describe_json_body(MessagesRequest),
)
async def create_message(request: Request) -> Response:
    """Reply to a conversation, whole or as server-sent events."""
    admission = await Admission.of(request)
    ignored = admission.ignored_params(MessagesRequest)
    # Always in a thread, as for chat completions.
    streams, model, prepared = await asyncio.to_thread(_prepare, admission)
    reply = await admission.start(model, prepared)
    headers = reply_headers(prepared, ignored)
    if streams:
        failure = partial(error_frame, request_id=admission.record.request_id)
        return StreamedReply(reply, _frames(reply), failure, headers)
    return await reply.whole(_body(reply), request.receive, headers)


@router.post(
    "/v1/messages/count_tokens",
    response_model=TokenCount,
    responses=_describe_errors(400, 401, 403, 404, 408, 413, 415, 500, 503),
    openapi_extra=describe_json_body(CountTokensRequest),
)
async def count_tokens(request: Request) -> Response:
    """Count the tokens of a prompt."""
    admission = await Admission.of(request, generates=False)
    headers = ignored_params_header(admission.ignored_params(CountTokensRequest))
    count = await asyncio.to_thread(_count, admission)
    return json_response(TokenCount(input_tokens=count).model_dump(), headers=headers)


def _prepare(admission: Admission) -> tuple[bool, ServedModel, PreparedTurn]:
    """Do all that can be done, and refuse all that can be refused, without the engine."""
    settings = admission.services.settings
    request = parse_messages_request(admission.body, max_messages=settings.max_messages)
    model = admission.hold_model(request.model, streams=bool(request.stream))
    prompt = request.prompt
    turn = messages_turn(
        request,
        prompt.messages,
        id=new_id("msg_"),
        tenant=admission.record.key_id,
        default_truncation=settings.truncation,
    )
    try:
        return bool(request.stream), model, admission.prepare(model, turn)
    except RequestError as error:
        raise prompt.in_own_words(error) from error


def _count(admission: Admission) -> int:
    request = parse_count_request(admission.body, max_messages=admission.services.settings.max_messages)
    prompts = admission.hold_model(request.model).chat.prompts
    tools, prompt = tool_use(request.tools or (), request.tool_choice), request.prompt
    try:
        return len(prompts.render(prompt.messages, request.end, tools))
    except RequestError as error:
        raise prompt.in_own_words(error) from error


async def _body(reply: Reply) -> bytes:
    whole = WholeMessage(reply.prepared, reply.model.name)
    async for event in reply.events():
        whole.add(event)
    return whole.body(usage_of(reply.prepared, reply.turn))


async def _frames(reply: Reply) -> AsyncIterator[bytes]:
    frames = MessageFrames(reply.prepared, reply.model.name)
    yield frames.opening(usage_of(reply.prepared, reply.turn))
    async for event in reply.events():
        if content := frames.event(event):
            yield content
    yield frames.closing(usage_of(reply.prepared, reply.turn))
