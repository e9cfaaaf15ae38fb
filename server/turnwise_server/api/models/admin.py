"""/admin/models: load a checkpoint while the server runs, see what is loaded, and take a model out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from turnwise_server.api.errors import ApiError, model_not_loaded
from turnwise_server.api.gates.access import require_scope
from turnwise_server.api.gates.body import read_json_object
from turnwise_server.api.models.served import ServedModel
from turnwise_server.api.openapi import describe_errors, describe_json_body
from turnwise_server.api.respond import json_response
from turnwise_server.api.services import services_of
from turnwise_server.api.validation import NoNul, RequestModel, validate
from turnwise_server.api.wire import LoadedModel, LoadedModelList, ModelDeleted
from turnwise_server.errors import ConfigurationError, EngineDeadError


async def _admin_only(request: Request) -> None:
    require_scope(request, "admin")


router = APIRouter(dependencies=[Depends(_admin_only)])


class LoadModelRequest(RequestModel):
    """Which checkpoint to serve, and in whose place."""

    path: Annotated[str, Field(min_length=1, max_length=4096), NoNul]
    """A directory on the server's machine, or a name on the Hugging Face hub."""
    model: Annotated[str, Field(min_length=1, max_length=256), NoNul] | None = None
    """The model id to serve it under, new or in use; by default the server's default model is replaced."""


@router.get("/admin/models", response_model=LoadedModelList, responses=describe_errors(401, 403, 500))
async def list_loaded_models(request: Request) -> Response:
    """List the served models with where they come from and who uses them."""
    models = services_of(request).models
    return json_response(LoadedModelList(data=[_card(model) for model in models]).model_dump())


@router.post(
    "/admin/models",
    response_model=LoadedModel,
    responses=describe_errors(400, 401, 403, 408, 409, 413, 415, 500, 503),
    openapi_extra=describe_json_body(LoadModelRequest),
)
async def load_model(request: Request) -> Response:
    """Load a checkpoint and swap it in; requests that run finish with the model they began with."""
    services = services_of(request)
    services.lifecycle.require_open()
    body = await read_json_object(request, timeout_s=services.settings.request_timeout_s)
    wanted = validate(LoadModelRequest, body)
    name = wanted.model or services.models.default.name
    try:
        return json_response(_card(await services.swaps.put(name, wanted.path)).model_dump())
    except (ConfigurationError, EngineDeadError) as error:
        raise ApiError(model_not_loaded(str(error))) from error


@router.delete(
    "/admin/models/{model:path}",
    response_model=ModelDeleted,
    responses=describe_errors(401, 403, 404, 409, 500, 503),
)
async def unload_model(request: Request, model: str) -> Response:
    """Serve a model no longer, once its requests are finished. The default model can only be replaced."""
    services = services_of(request)
    services.lifecycle.require_open()
    services.swaps.remove(model)
    return json_response(ModelDeleted(id=model).model_dump())


def _card(model: ServedModel) -> LoadedModel:
    return LoadedModel(
        id=model.name,
        created=model.created,
        path=model.source,
        system_fingerprint=model.system_fingerprint,
        max_model_len=model.chat.context_length,
        requests=model.users,
    )
