"""GET /health (the process answers) and GET /ready (send it work). Both are open to everybody and fast."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from turnwise_server.api.errors import ApiError, engine_stalled, engine_unavailable
from turnwise_server.api.openapi import describe_errors
from turnwise_server.api.respond import json_response
from turnwise_server.api.services import services_of
from turnwise_server.api.wire import Fault, Health, Readiness

router = APIRouter()


@router.get("/health", response_model=Health, responses=describe_errors(403, 500))
async def health(request: Request) -> Response:
    """Say that the process is alive, and what about it is not as it should be."""
    services = services_of(request)
    faults: list[Fault] = []
    if services.policy.fault is not None:
        faults.append("policy_not_loaded")
    if services.enforcement is None:
        faults.append("no_classifier")
    elif not services.enforcement.is_recorded:
        faults.append("audit_not_written")
    return json_response(Health(status="degraded" if faults else "ok", faults=faults).model_dump())


@router.get("/ready", response_model=Readiness, responses=describe_errors(403, 500, 503))
async def ready(request: Request) -> Response:
    """Say whether requests would be served: the engine lives, makes progress, and nobody shuts the server down."""
    services = services_of(request)
    services.lifecycle.require_open()
    readiness = Readiness(running=0, waiting=0)
    for model in services.models:
        stats = model.engine.stats()
        if not stats.is_alive:
            raise ApiError(engine_unavailable())
        if model.stall_detector.is_stalled(stats):
            raise ApiError(engine_stalled())
        readiness.running += stats.running
        readiness.waiting += stats.waiting
    return json_response(readiness.model_dump())
