"""GET /v1/models and /v1/models/{id}: what is served, and its limits."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from turnwise_server.api.models.served import ServedModel
from turnwise_server.api.openapi import describe_errors
from turnwise_server.api.respond import json_response
from turnwise_server.api.services import services_of
from turnwise_server.api.wire import ModelCard, ModelList

router = APIRouter()


@router.get("/v1/models", response_model=ModelList, responses=describe_errors(401, 403, 500))
async def list_models(request: Request) -> Response:
    """List the served models."""
    services = services_of(request)
    default_max_tokens = services.settings.default_max_tokens
    return json_response(
        ModelList(data=[_card(model, default_max_tokens) for model in services.models]).model_dump()
    )


@router.get(
    "/v1/models/{model:path}", response_model=ModelCard, responses=describe_errors(401, 403, 404, 500)
)
async def retrieve_model(request: Request, model: str) -> Response:
    """Describe one model; ids may contain slashes."""
    services = services_of(request)
    card = _card(services.models.get(model), services.settings.default_max_tokens)
    return json_response(card.model_dump())


def _card(model: ServedModel, default_max_tokens: int) -> ModelCard:
    context_length = model.chat.context_length
    return ModelCard(
        id=model.name,
        created=model.created,
        owned_by="turnwise",
        max_model_len=context_length,
        default_max_tokens=min(default_max_tokens, context_length),
    )
