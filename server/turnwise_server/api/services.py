"""What every route shares: one object on the application, made once by `create_app`."""

from __future__ import annotations

import secrets
import string
import time
from dataclasses import dataclass, field
from typing import cast

from starlette.requests import Request

from turnwise_server.api.errors import ApiError, model_not_found
from turnwise_server.api.lifecycle import Lifecycle, StallDetector
from turnwise_server.chat.model import ChatModel
from turnwise_server.config import Settings
from turnwise_server.engine.base import Engine

_ID_ALPHABET = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class Services:
    """The parts a route works with."""

    settings: Settings
    engine: Engine
    model: ChatModel
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    stall_detector: StallDetector = field(default_factory=StallDetector)
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def system_fingerprint(self) -> str:
        """Same fingerprint, seed and request: same reply."""
        return f"fp_{self.model.fingerprint[:10]}"

    def require_model(self, name: str) -> None:
        """Check that a model of this name is served.

        Raises:
            ApiError: 404 model_not_found.
        """
        if name != self.settings.served_model_name:
            raise ApiError(model_not_found(name))


def services_of(request: Request) -> Services:
    """Return the services of the application that handles the request."""
    return cast("Services", request.app.state.services)


def new_id(prefix: str) -> str:
    """Make an id like OpenAI's: `chatcmpl-` and 29 letters and digits."""
    return f"{prefix}-" + "".join(secrets.choice(_ID_ALPHABET) for _ in range(29))
