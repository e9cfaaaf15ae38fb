"""Puts the HTTP application together. It starts nothing: engine and model come in ready."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match

from turnwise_server.api import feedback, health, openapi, policy
from turnwise_server.api.anthropic import create as anthropic
from turnwise_server.api.anthropic.errors import AnthropicErrors
from turnwise_server.api.chat_completions import create as chat
from turnwise_server.api.chat_completions import stored as stored_completions
from turnwise_server.api.errors import ErrorReply, error_reply, method_not_allowed, unknown_url
from turnwise_server.api.gates.access import HostGate, KeyGate
from turnwise_server.api.gates.body import BodyLimit
from turnwise_server.api.gates.cors import Cors
from turnwise_server.api.gates.rate_limits import RateLimitGate
from turnwise_server.api.models import admin
from turnwise_server.api.models import routes as models
from turnwise_server.api.moderations import routes as moderations
from turnwise_server.api.respond import error_response
from turnwise_server.api.responses import create as responses
from turnwise_server.api.responses import stored as response_routes
from turnwise_server.api.responses.background import BackgroundReplies
from turnwise_server.api.services import Services
from turnwise_server.api.telemetry import metrics_route
from turnwise_server.api.telemetry.endpoints import Endpoints
from turnwise_server.api.telemetry.request_log import CLIENT_GONE, RequestLog, record_of
from turnwise_server.api.text_completions import create as completions
from turnwise_server.api.tokenization import routes as tokenization
from turnwise_server.auth import KeyRing
from turnwise_server.errors import TurnwiseError

ROUTERS = (
    chat.router,
    stored_completions.router,
    completions.router,
    responses.router,
    response_routes.router,
    feedback.router,
    moderations.router,
    tokenization.router,
    anthropic.router,
    admin.router,
    models.router,
    policy.router,
    health.router,
    metrics_route.router,
    openapi.router,
)


def create_app(services: Services, keys: KeyRing | None = None) -> FastAPI:
    """Return the application that serves `services` to whoever has one of `keys` (to all, if there are none)."""
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    app.state.services = services
    app.state.background = BackgroundReplies()
    for router in ROUTERS:
        app.include_router(router)
    app.add_exception_handler(TurnwiseError, _refuse)
    app.add_exception_handler(HTTPException, _refuse_http)
    app.add_exception_handler(RequestValidationError, _refuse)
    app.add_exception_handler(ClientDisconnect, _client_gone)
    # The last one added is the outermost: CORS, Anthropic's errors, log, host, size, key, rate limit, then the routes.
    settings = services.settings
    app.add_middleware(RateLimitGate, limiter=services.limiter)
    app.add_middleware(KeyGate, keys=keys or KeyRing())
    app.add_middleware(BodyLimit, max_body_bytes=settings.max_body_bytes)
    if settings.is_loopback:
        app.add_middleware(
            HostGate,
            allowed_hosts=(settings.host, *settings.allowed_hosts),
            allowed_origins=settings.cors_allowed_origins,
        )
    app.add_middleware(
        RequestLog,
        lifecycle=services.lifecycle,
        metrics=services.metrics,
        tracer=services.tracer,
        endpoints=Endpoints(route for router in ROUTERS for route in router.routes),
    )
    app.add_middleware(AnthropicErrors)
    if settings.cors_allowed_origins:
        app.add_middleware(Cors, allowed_origins=settings.cors_allowed_origins)
    return app


async def _refuse(request: Request, error: Exception) -> Response:
    record = record_of(request.scope)
    return _refusal(request, error_reply(error, record.request_id))


async def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    method, path = request.method, request.url.path
    if error.status_code == 404:
        return _refusal(request, unknown_url(method, path))
    if error.status_code == 405:
        return _refusal(request, method_not_allowed(method, _methods_at(request)))
    return _refusal(request, ErrorReply(error.status_code, str(error.detail), headers=error.headers or {}))


def _methods_at(request: Request) -> str:
    """Return the methods of a path; the exception of the router names those of the path's first route alone."""
    routes = (route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute))
    matching = (route for route in routes if route.matches(request.scope)[0] is not Match.NONE)
    return ", ".join(sorted({method for route in matching for method in route.methods or ()}))


async def _client_gone(request: Request, _error: Exception) -> Response:
    record_of(request.scope).status = CLIENT_GONE
    return Response(status_code=CLIENT_GONE)


def _refusal(request: Request, reply: ErrorReply) -> Response:
    record_of(request.scope).facts["error"] = reply.code
    return error_response(reply)
