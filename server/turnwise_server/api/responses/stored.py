"""Responses that are kept: read, watch, cancel and delete them, and list what they were made from."""

from __future__ import annotations

import json
import time
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from turnwise_server.api.errors import ApiError, ErrorReply, unknown_url
from turnwise_server.api.openapi import describe_errors, describe_stream
from turnwise_server.api.paging import Page, PageQuery, describe_query, page_response, parse_query
from turnwise_server.api.respond import json_response
from turnwise_server.api.responses.background import BackgroundView, background_of, stream_events
from turnwise_server.api.responses.items import Item
from turnwise_server.api.responses.storage import KeptResponses, is_unfinished, lost
from turnwise_server.api.responses.wire import ModelResponse, ResponseDeleted, ResponseEvent
from turnwise_server.api.services import services_of
from turnwise_server.api.telemetry.request_log import record_of
from turnwise_server.api.validation import RequestModel
from turnwise_server.api.wire import encode_json
from turnwise_server.config import Settings
from turnwise_server.errors import RequestError

router = APIRouter()


class RetrieveQuery(RequestModel):
    """How to read a response."""

    stream: Literal["true", "false"] = "false"
    starting_after: Annotated[str, Field(pattern=r"^[0-9]{1,9}$")] | None = None
    """The sequence number of the last event that the client has."""


class InputItemQuery(PageQuery):
    """Which input items to list."""

    order: Literal["asc", "desc"] = "desc"


@router.get(
    "/v1/responses/{response_id}",
    response_model=ModelResponse,
    responses=describe_stream(ResponseEvent) | describe_errors(400, 401, 403, 404, 500, 503),
    openapi_extra=describe_query(RetrieveQuery),
)
async def retrieve_response(request: Request, response_id: str) -> Response:
    """Return a response, or stream the events of one that was made in the background as a stream."""
    query = parse_query(RetrieveQuery, request)
    kept = _kept(request)
    if query.stream == "false":
        return json_response(await _current(request, kept, response_id))
    background = background_of(request).with_events(kept.owner, response_id)
    if background is None:
        await kept.find(response_id)
        raise RequestError(
            "Only a response that was made with 'background' and 'stream' can be streamed again, and for five minutes "
            "after its end. Retrieve this one without 'stream'.",
            param="stream",
            code="invalid_value",
        )
    view = BackgroundView(services_of(request), record_of(request.scope))
    after = -1 if query.starting_after is None else int(query.starting_after)
    return stream_events(background, view, after=after)


@router.delete(
    "/v1/responses/{response_id}",
    response_model=ResponseDeleted,
    responses=describe_errors(401, 403, 404, 500, 503),
)
async def delete_response(request: Request, response_id: str) -> Response:
    """Delete a response; one that is still being made is stopped first."""
    kept = _kept(request)
    running = background_of(request).running(kept.owner, response_id)
    if running is not None:
        await running.cancel()
    await kept.delete(response_id)
    background_of(request).remove(kept.owner, response_id)
    return json_response(ResponseDeleted(id=response_id).model_dump())


@router.post(
    "/v1/responses/{response_id}/cancel",
    response_model=ModelResponse,
    responses=describe_errors(400, 401, 403, 404, 409, 500, 503),
)
async def cancel_response(request: Request, response_id: str) -> Response:
    """Stop a background response. One that has ended already is returned as it is."""
    kept = _kept(request)
    running = background_of(request).running(kept.owner, response_id)
    if running is not None:
        await running.cancel()
        return json_response(running.response.model_dump())
    body = await _current(request, kept, response_id)
    if not body["background"]:
        raise RequestError("Cannot cancel a synchronous response.", code="invalid_value")
    if is_unfinished(body):
        raise ApiError(_runs_elsewhere())
    return json_response(body)


@router.get(
    "/v1/responses/{response_id}/input_items",
    response_model=Page,
    responses=describe_errors(400, 401, 403, 404, 500, 503),
    openapi_extra=describe_query(InputItemQuery),
)
async def list_input_items(request: Request, response_id: str) -> Response:
    """List the items of a response's input, the last one first unless asked otherwise."""
    query = parse_query(InputItemQuery, request)
    kept = _kept(request)
    items = json.loads((await kept.find(response_id)).input_items)
    if query.order == "desc":
        items.reverse()
    start = next((at for at, item in enumerate(items, 1) if item["id"] == query.after), 0)
    page = items[start : start + query.limit]
    listed = [(item["id"], encode_json(item).decode()) for item in page]
    return page_response(listed, has_more=start + len(page) < len(items))


@router.post("/v1/responses/compact", include_in_schema=False)
async def compact_response(request: Request) -> Response:
    """Refuse what would otherwise look like the name of a response."""
    raise ApiError(unknown_url(request.method, request.url.path))


def _kept(request: Request) -> KeptResponses:
    return KeptResponses(services_of(request).storage, record_of(request.scope).key_id)


async def _current(request: Request, kept: KeptResponses, response_id: str) -> Item:
    """Return a response as it stands; one that lost its server has failed, and is stored so.

    Raises:
        ApiError: 404 not_found.
        StoreError: the database cannot be read.
    """
    running = background_of(request).running(kept.owner, response_id)
    if running is not None:
        return running.response.model_dump()
    body: Item = json.loads((await kept.find(response_id)).body)
    if is_unfinished(body) and not _may_run_elsewhere(body, services_of(request).settings):
        response = lost(body)
        await kept.settle(response)
        return response.model_dump()
    return body


def _may_run_elsewhere(body: Item, settings: Settings) -> bool:
    """Say whether another server may be at work on it: one that shares the database, and for as long as it may take."""
    url = settings.database_url
    is_shared = url is not None and not url.get_secret_value().startswith("sqlite")
    return is_shared and time.time() < body["created_at"] + settings.request_timeout_s


def _runs_elsewhere() -> ErrorReply:
    return ErrorReply(
        409,
        "The response is being made by another server that shares this one's database. Cancel it there.",
        code="running_elsewhere",
    )
