"""POST /v1/completions: continue texts, whole or as a stream. No template: the model reads what the client wrote."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from turnwise_server.api.admission import Admission, reply_headers
from turnwise_server.api.chat_completions.create import failure_frame, identity_of
from turnwise_server.api.chat_completions.reply import usage_of
from turnwise_server.api.models.served import ServedModel
from turnwise_server.api.openapi import describe_errors, describe_json_body, describe_stream
from turnwise_server.api.reply import Reply, StreamedReply
from turnwise_server.api.services import new_id
from turnwise_server.api.sse import DONE, PING
from turnwise_server.api.text_completions.reply import TextCompletion, TextFrames, WholeText
from turnwise_server.api.text_completions.request import (
    CompletionRequest,
    completion_turn,
    parse_completion_request,
)
from turnwise_server.chat.turn import PreparedTurn

router = APIRouter()


@dataclass(frozen=True, slots=True)
class _Prepared:
    request: CompletionRequest
    model: ServedModel
    turn: PreparedTurn
    echoes: list[str]
    """What the text of every choice begins with."""


@router.post(
    "/v1/completions",
    response_model=TextCompletion,
    responses=describe_stream(TextCompletion)
    | describe_errors(400, 401, 403, 404, 408, 413, 415, 429, 500, 503, 504),
    openapi_extra=describe_json_body(CompletionRequest),
)
async def create_completion(request: Request) -> Response:
    """Continue texts, whole or as server-sent events."""
    admission = await Admission.of(request)
    ignored = admission.ignored_params(CompletionRequest)
    # In a thread: long texts must not stall the streams that run.
    prepared = await asyncio.to_thread(_prepare, admission)
    reply = await admission.start(prepared.model, prepared.turn)
    headers = reply_headers(prepared.turn, ignored)
    if prepared.request.stream:
        return StreamedReply(reply, _frames(reply, prepared), failure_frame, headers)
    return await reply.whole(_body(reply, prepared), request.receive, headers)


def _prepare(admission: Admission) -> _Prepared:
    """Do all that can be done, and refuse all that can be refused, without the engine."""
    request = parse_completion_request(admission.body)
    model = admission.hold_model(request.model, streams=bool(request.stream))
    turn = completion_turn(request, id=new_id("cmpl-"), tenant=admission.record.key_id)
    prepared = model.chat.prepare_text(turn, request.prompts)
    return _Prepared(request, model, prepared, _echoes(request, model, n=prepared.n))


def _echoes(request: CompletionRequest, model: ServedModel, *, n: int) -> list[str]:
    texts = [
        prompt if isinstance(prompt, str) else model.chat.prompts.plain.decode(prompt)
        for prompt in request.prompts
    ]
    return [text if request.echo else "" for text in texts for _ in range(n)]


async def _body(reply: Reply, prepared: _Prepared) -> bytes:
    has_logprobs = prepared.request.logprobs is not None
    whole = WholeText(identity_of(reply), echoes=prepared.echoes, has_logprobs=has_logprobs)
    async for event in reply.events():
        whole.add(event)
    return whole.body(usage_of(reply.prepared, reply.turn))


async def _frames(reply: Reply, prepared: _Prepared) -> AsyncIterator[bytes]:
    is_asked = prepared.request.includes_usage
    frames = TextFrames(identity_of(reply), echoes=prepared.echoes, includes_usage=is_asked)
    # The stream opens before the first token, and these streams have no frame that says so.
    yield PING
    async for event in reply.events():
        yield frames.event(event)
    yield (frames.usage(usage_of(reply.prepared, reply.turn)) if is_asked else b"") + DONE
