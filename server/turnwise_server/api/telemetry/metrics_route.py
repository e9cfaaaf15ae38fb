"""GET /metrics: every figure of the server for Prometheus. It needs a key like any other route."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.requests import Request
from starlette.responses import Response

from turnwise_server.api.openapi import describe_errors
from turnwise_server.api.services import services_of

router = APIRouter()

_TEXT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}


@router.get("/metrics", response_class=Response, responses=_TEXT | describe_errors(401, 403, 500))
async def metrics(request: Request) -> Response:
    """Report the server's metrics in the Prometheus text format."""
    services = services_of(request)
    engines = {model.name: model.engine.stats() for model in services.models}
    text = await asyncio.to_thread(services.metrics.exposition, engines)
    return Response(text, headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})
