"""POST /v1/moderations: what the policy's detectors say of texts. It asks nothing of the engine, and stores nothing."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from turnwise_server.api.admission import Admission, ignored_params_header
from turnwise_server.api.errors import ApiError, deadline_passed, no_classifier, shutting_down
from turnwise_server.api.moderations.model_names import check_model, model_name
from turnwise_server.api.moderations.request import ModerationRequest
from turnwise_server.api.moderations.results import result_of, unscored
from turnwise_server.api.moderations.wire import Moderation
from turnwise_server.api.openapi import describe_errors, describe_json_body
from turnwise_server.api.respond import json_response
from turnwise_server.api.services import Services, new_id
from turnwise_server.api.supervision import Interrupted, Interruption, disconnected, supervise
from turnwise_server.api.validation import validate
from turnwise_server.chat.refusal.verdict import ModerationUnavailableError
from turnwise_server.moderation.layer import RefusalLayer
from turnwise_server.moderation.panel import Asked
from turnwise_server.moderation.readings import Reading

TEXTS_AT_ONCE = 4
"""Texts that detectors are asked about before another request has its turn. More of them would keep replies waiting,
whose checks go to the same detectors and have deadlines."""

router = APIRouter()


@router.post(
    "/v1/moderations",
    response_model=Moderation,
    responses=describe_errors(400, 401, 403, 404, 408, 413, 415, 429, 500, 503, 504),
    openapi_extra=describe_json_body(ModerationRequest),
)
async def create_moderation(request: Request) -> Response:
    """Say how likely each text belongs to each of OpenAI's categories, as requests are judged."""
    admission = await Admission.of(request, generates=False)
    if admission.services.enforcement is None:
        raise ApiError(no_classifier())
    layer = admission.record.held.enter_context(admission.services.enforcement.held())
    headers = ignored_params_header(admission.ignored_params(ModerationRequest))
    asked = validate(ModerationRequest, admission.body)
    check_model(asked.model, layer)
    admission.record.facts["inputs"] = len(asked.texts)
    readings = await _judge(admission, layer, asked.texts)
    if any(any(unscored(layer.policy, reading)) for reading in readings):
        headers["x-moderation"] = "skipped"
    moderation = Moderation(
        id=new_id("modr-"), model=model_name(layer), results=[result_of(reading) for reading in readings]
    )
    return json_response(moderation.model_dump(), headers=headers)


async def _judge(admission: Admission, layer: RefusalLayer, texts: Sequence[str]) -> list[Reading]:
    """Read all texts, as long as somebody waits for the answer.

    Raises:
        ModerationUnavailableError: a category that fails closed could not be looked for.
        ApiError: the deadline passed, or the server had to stop.
        ClientDisconnect: the client went away.
    """
    services, timeout_s = admission.services, admission.services.settings.request_timeout_s
    try:
        return await supervise(
            _read(services, layer, texts),
            until={
                Interruption.CLIENT_GONE: disconnected(admission.request.receive),
                Interruption.SHUTDOWN: services.lifecycle.aborted.wait(),
            },
            timeout_s=timeout_s - admission.record.elapsed_ms() / 1000,
        )
    except Interrupted as interrupted:
        if interrupted.reason is Interruption.CLIENT_GONE:
            raise ClientDisconnect from interrupted
        is_late = interrupted.reason is Interruption.DEADLINE
        raise ApiError(deadline_passed(timeout_s) if is_late else shutting_down()) from interrupted


async def _read(services: Services, layer: RefusalLayer, texts: Sequence[str]) -> list[Reading]:
    """Read texts a few at a time, in turn with other requests."""
    readings: list[Reading] = []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        asked: list[Asked] = []
        async with services.moderating:
            found = await layer.read(texts[start : start + TEXTS_AT_ONCE], "input", asked.append)
        services.metrics.safety.detectors_asked(asked)
        missed = (category for reading in found for category in unscored(layer.policy, reading))
        if any(category.on_error == "closed" for category in missed):
            raise ModerationUnavailableError("A text could not be checked.")
        readings += found
    return readings
