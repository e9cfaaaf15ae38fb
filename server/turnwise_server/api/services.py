"""What every route shares: one object on the application, made once by `create_app`."""

from __future__ import annotations

import secrets
import string
from dataclasses import dataclass, field
from typing import cast

from starlette.requests import Request

from turnwise_server.api.lifecycle import Lifecycle
from turnwise_server.api.metrics import Metrics
from turnwise_server.api.served_models import ServedModels
from turnwise_server.api.tracing import Tracer, UnwrittenTracer
from turnwise_server.config import Settings

_ID_ALPHABET = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class Services:
    """The parts a route works with."""

    settings: Settings
    models: ServedModels
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    metrics: Metrics = field(default_factory=Metrics)
    tracer: Tracer = field(default_factory=UnwrittenTracer)


def services_of(request: Request) -> Services:
    """Return the services of the application that handles the request."""
    return cast("Services", request.app.state.services)


def new_id(prefix: str) -> str:
    """Make an id like OpenAI's: the prefix (`chatcmpl-`, `resp_`) and 29 letters and digits."""
    return prefix + "".join(secrets.choice(_ID_ALPHABET) for _ in range(29))
