"""What every route shares: one object on the application, made once by `create_app`."""

from __future__ import annotations

import asyncio
import secrets
import string
import time
from dataclasses import dataclass, field
from typing import cast

from starlette.requests import Request

from turnwise_server.api.lifecycle import Lifecycle
from turnwise_server.api.models.served import ServedModels
from turnwise_server.api.models.swaps import ModelSwaps
from turnwise_server.api.storage import Storage
from turnwise_server.api.telemetry.metrics import Metrics
from turnwise_server.api.telemetry.tracing import Tracer, UnwrittenTracer
from turnwise_server.chat.refusal.policy_holder import PolicyHolder
from turnwise_server.config import Settings
from turnwise_server.limits.limiter import RateLimiter
from turnwise_server.moderation.enforcement import Enforcement

_ID_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
"""In the order of their bytes, so that ids sort by the time that they begin with."""


@dataclass(frozen=True, slots=True)
class Services:
    """The parts a route works with."""

    settings: Settings
    models: ServedModels
    swaps: ModelSwaps
    storage: Storage
    limiter: RateLimiter
    policy: PolicyHolder
    """What the assistant is held to."""
    enforcement: Enforcement | None
    """What holds it to the policy; None where nothing does."""
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    metrics: Metrics = field(default_factory=Metrics)
    tracer: Tracer = field(default_factory=UnwrittenTracer)
    moderating: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while detectors are asked for /v1/moderations: what waits behind it keeps no reply waiting."""


def services_of(request: Request) -> Services:
    """Return the services of the application that handles the request."""
    return cast("Services", request.app.state.services)


def new_id(prefix: str) -> str:
    """Make an id like OpenAI's: the prefix (`chatcmpl-`, `resp_`), the time in 8 letters and digits, 21 random ones."""
    now_ms = time.time_ns() // 1_000_000
    moment = (_ID_ALPHABET[now_ms // 62**place % 62] for place in range(7, -1, -1))
    return prefix + "".join(moment) + "".join(secrets.choice(_ID_ALPHABET) for _ in range(21))
