"""What /openapi.json says beyond what FastAPI finds out: request bodies, and the error object of every status."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from turnwise_server import __version__
from turnwise_server.api.gates.access import OPEN_PATHS
from turnwise_server.api.respond import json_response
from turnwise_server.api.wire import ErrorBody

router = APIRouter()

_REF = "#/components/schemas/{model}"


def describe_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Declare the statuses that a route may fail with; all carry the error object."""
    return {status: {"model": ErrorBody} for status in statuses}


def describe_json_body(model: type[BaseModel]) -> dict[str, Any]:
    """Declare the body of a route that reads it by itself."""
    content = {"application/json": {"schema": _schema(model)}}
    return {"requestBody": {"required": True, "content": content}}


def describe_stream(frame: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """Declare that a route may answer with server-sent events, and what one of them holds."""
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": _schema(frame)}
    event = {
        "type": "object",
        "properties": {"event": {"type": "string"}, "data": data},
        "required": ["data"],
    }
    return {200: {"content": {"text/event-stream": {"itemSchema": event}}}}


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(ref_template=_REF)


@router.get("/openapi.json", responses=describe_errors(401, 403, 500))
async def openapi_document(request: Request) -> Response:
    """Describe every route."""
    return json_response(document_of(request.app))


@lru_cache(maxsize=1)
def document_of(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of the application."""
    content = get_openapi(
        title="Turnwise",
        version=__version__,
        description="A chat server that speaks the OpenAI API.",
        routes=app.routes,
    )
    schemas = content["components"]["schemas"]
    _share_schemas(content["paths"], schemas)
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    content["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in content["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)  # FastAPI's own, which this server never sends
            if path not in OPEN_PATHS:
                operation["security"] = [{"key": []}, {}]
    return content


def _share_schemas(node: Any, schemas: dict[str, Any]) -> None:
    """Move every schema that a route described by itself, and what it refers to, among the shared ones."""
    if isinstance(node, list):
        for value in node:
            _share_schemas(value, schemas)
    if not isinstance(node, dict):
        return
    for place in ("schema", "contentSchema"):
        own = node.get(place)
        if isinstance(own, dict) and own.get("type") == "object" and "title" in own:
            schemas.update(own.pop("$defs", {}))
            schemas[own["title"]] = own
            node[place] = {"$ref": _REF.format(model=own["title"])}
    for value in node.values():
        _share_schemas(value, schemas)
