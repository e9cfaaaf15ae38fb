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
from turnwise_server.api.chat_request import ChatCompletionRequest
from turnwise_server.api.respond import json_response
from turnwise_server.api.wire import ChatCompletionChunk, ErrorBody

router = APIRouter()

_REF = "#/components/schemas/{model}"
_MODELS: tuple[type[BaseModel], ...] = (ChatCompletionRequest, ChatCompletionChunk)


def describe_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Declare the statuses that a route may fail with; all carry the error object."""
    declared: list[int | str] = [*statuses, "default"]
    return {status: {"model": ErrorBody} for status in declared}


def describe_json_body(model: type[BaseModel]) -> dict[str, Any]:
    """Declare the body of a route that reads it by itself."""
    schema = {"$ref": _REF.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


@router.get("/openapi.json", responses=describe_errors(401, 403, 500))
async def openapi_document(request: Request) -> Response:
    """Describe every route."""
    return json_response(_document(request.app))


@lru_cache(maxsize=1)
def _document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of the application."""
    content = get_openapi(
        title="Turnwise",
        version=__version__,
        description="A chat server that speaks the OpenAI API.",
        routes=app.routes,
    )
    schemas = content["components"]["schemas"]
    for model in _MODELS:
        schema = model.model_json_schema(ref_template=_REF)
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    content["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in content["paths"].items():
        for operation in operations.values():
            if path.startswith("/v1/"):
                operation["security"] = [{"key": []}, {}]
    return content
