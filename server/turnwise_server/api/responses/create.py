"""POST /v1/responses: make a response, whole, as a stream, or in the background; and count what one would read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from turnwise_server.api.admission import Admission, ignored_params_header, reply_headers
from turnwise_server.api.models.served import ServedModel
from turnwise_server.api.openapi import describe_errors, describe_json_body, describe_stream
from turnwise_server.api.reply import Reply, StreamedReply
from turnwise_server.api.respond import json_response
from turnwise_server.api.responses.background import (
    BackgroundReplies,
    BackgroundReply,
    BackgroundStart,
    BackgroundView,
    background_of,
    stream_events,
)
from turnwise_server.api.responses.draft import draft_response, response_usage
from turnwise_server.api.responses.items import Item, stored_items
from turnwise_server.api.responses.messages import make_prompt
from turnwise_server.api.responses.past import Past, read_past
from turnwise_server.api.responses.request import (
    PromptRequest,
    ResponseRequest,
    parse_prompt_request,
    parse_response_request,
)
from turnwise_server.api.responses.storage import KeptResponses
from turnwise_server.api.responses.wire import InputTokens, ModelResponse, ResponseEvent
from turnwise_server.api.responses.writer import ResponseWriter
from turnwise_server.api.services import new_id
from turnwise_server.api.wire import encode_json
from turnwise_server.chat.turn import PreparedTurn
from turnwise_server.errors import ContextLengthError, RequestError

router = APIRouter()


@dataclass(frozen=True, slots=True)
class _Job:
    """A response that can be made: nothing about it can be refused any more."""

    asked: ResponseRequest
    model: ServedModel
    prepared: PreparedTurn
    items: list[Item]
    past: Past
    kept: KeptResponses

    async def keep(self, response: ModelResponse) -> None:
        """Store the response as its client wants it.

        Raises:
            StoreError: it cannot be stored.
        """
        if self.asked.store is not False:
            durable = self.asked.store is True
            await self.kept.save(response, self.items, self.past.history, durable=durable)


@router.post(
    "/v1/responses",
    response_model=ModelResponse,
    responses=describe_stream(ResponseEvent)
    | describe_errors(400, 401, 403, 404, 408, 413, 415, 429, 500, 503, 504),
    openapi_extra=describe_json_body(ResponseRequest),
)
async def create_response(request: Request) -> Response:
    """Make a response, whole, as server-sent events, or in the background."""
    admission = await Admission.of(request)
    ignored = admission.ignored_params(ResponseRequest)
    kept, max_items = _kept(admission), admission.services.settings.max_messages
    # Always in threads, as for chat completions.
    asked = await asyncio.to_thread(parse_response_request, admission.body, max_items=max_items)
    past = await read_past(asked, kept, background_of(request), max_items=max_items)
    job = await asyncio.to_thread(_prepare, admission, asked, past, kept)
    if asked.store:
        await kept.storage.run(kept.storage.completions.check)
    reply = await admission.start(job.model, job.prepared)
    writer = ResponseWriter(draft_response(asked, admission, job.model, job.prepared))
    headers = reply_headers(job.prepared, ignored)
    if asked.background:
        return await _in_background(job, reply, writer, background_of(request), headers)
    if asked.stream:
        return StreamedReply(reply, _frames(job, reply, writer), writer.failed, headers)
    return await reply.whole(_body(job, reply, writer), request.receive, headers)


@router.post(
    "/v1/responses/input_tokens",
    response_model=InputTokens,
    responses=describe_errors(400, 401, 403, 404, 408, 413, 415, 500, 503),
    openapi_extra=describe_json_body(PromptRequest),
)
async def count_input_tokens(request: Request) -> Response:
    """Count the tokens that a response would read."""
    admission = await Admission.of(request, generates=False)
    kept, max_items = _kept(admission), admission.services.settings.max_messages
    asked = await asyncio.to_thread(parse_prompt_request, admission.body, max_items=max_items)
    ignored = admission.ignored_params(PromptRequest)
    past = await read_past(asked, kept, background_of(request), max_items=max_items)
    tokens = await asyncio.to_thread(_count, admission, asked, past)
    headers = ignored_params_header(ignored)
    return json_response(InputTokens(input_tokens=tokens).model_dump(), headers=headers)


def _kept(admission: Admission) -> KeptResponses:
    return KeptResponses(admission.services.storage, admission.record.key_id)


def _prepare(admission: Admission, asked: ResponseRequest, past: Past, kept: KeptResponses) -> _Job:
    """Do all that can be done, and refuse all that can be refused, without the engine."""
    response_id = new_id("resp_")
    model = admission.hold_model(asked.model, streams=bool(asked.stream))
    items = stored_items(asked.input, response_id, past.referenced)
    prompt = make_prompt(asked.instructions, past.items(), items)
    turn = asked.turn(
        prompt.messages,
        response_id=response_id,
        tenant=admission.record.key_id,
        default_max_tokens=admission.services.settings.default_max_tokens,
    )
    try:
        prepared = admission.prepare(model, turn)
    except RequestError as error:
        raise prompt.in_own_words(error) from error
    return _Job(asked, model, prepared, items, past, kept)


def _count(admission: Admission, asked: PromptRequest, past: Past) -> int:
    response_id = new_id("resp_")
    model = admission.hold_model(asked.model)
    items = stored_items(asked.input, response_id, past.referenced)
    prompt = make_prompt(asked.instructions, past.items(), items)
    turn = asked.prompt_turn(prompt.messages, response_id=response_id, tenant=admission.record.key_id)
    try:
        return model.chat.prepare(turn).prompt_tokens
    except ContextLengthError as error:
        return error.prompt_tokens
    except RequestError as error:
        raise prompt.in_own_words(error) from error


async def _body(job: _Job, reply: Reply, writer: ResponseWriter) -> bytes:
    async for event in reply.events():
        writer.event(event)
    writer.finish(response_usage(reply.prepared, reply.turn))
    await job.keep(writer.response)
    return encode_json(writer.response.model_dump())


async def _frames(job: _Job, reply: Reply, writer: ResponseWriter) -> AsyncIterator[bytes]:
    yield writer.created() + writer.started()
    async for event in reply.events():
        yield writer.event(event)
    writer.finish(response_usage(reply.prepared, reply.turn))
    await job.keep(writer.response)
    yield writer.finished()


async def _in_background(
    job: _Job,
    reply: Reply,
    writer: ResponseWriter,
    background_replies: BackgroundReplies,
    headers: dict[str, str],
) -> Response:
    """Answer at once with what is queued; the response is stored before anything of it is said."""
    try:
        await job.keep(writer.response)
    except BaseException:
        reply.close()
        raise
    background = BackgroundReply(reply, writer, job.kept, has_stream=bool(job.asked.stream))
    background_replies.add(job.kept.owner, background)
    if job.asked.stream:
        view = BackgroundView(reply.services, reply.record)
        return BackgroundStart(stream_events(background, view, headers=headers), background)
    return BackgroundStart(json_response(background.response.model_dump(), headers=headers), background)
