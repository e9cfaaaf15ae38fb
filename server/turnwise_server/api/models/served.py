"""The models that are served, by name. One can be replaced while requests still use the one before it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from turnwise_server.api.errors import ApiError, missing_model, model_not_found
from turnwise_server.api.lifecycle import StallDetector
from turnwise_server.chat.model import ChatModel
from turnwise_server.engine.base import Engine


@dataclass(slots=True, eq=False)
class ServedModel:
    """One model under one name: an engine, and the chat layer in front of it."""

    name: str
    source: str
    """The directory or hub name it was loaded from."""
    engine: Engine
    chat: ChatModel
    created: int = field(default_factory=lambda: int(time.time()))
    """When it was loaded, in seconds since 1970."""
    stall_detector: StallDetector = field(default_factory=StallDetector)
    users: int = 0
    """How many requests hold it."""

    @property
    def system_fingerprint(self) -> str:
        """Same fingerprint, seed and request: same reply."""
        return f"fp_{self.chat.fingerprint[:10]}"


class ServedModels:
    """Every model that is served; the first one put in is the default."""

    def __init__(self, *models: ServedModel, allows_default: bool = False) -> None:
        """Serve `models`; with `allows_default`, requests need not name one."""
        self._models = {model.name: model for model in models}
        self._allows_default = allows_default
        # Requests are read in threads: finding a model and holding it must not be torn apart by a replacement.
        self._lock = threading.Lock()
        self._released = asyncio.Event()

    def __iter__(self) -> Iterator[ServedModel]:
        """Yield the models, the default first."""
        return iter(tuple(self._models.values()))

    @property
    def default(self) -> ServedModel:
        """The model of requests that may leave out which one they mean."""
        return next(iter(self))

    def get(self, name: str) -> ServedModel:
        """Return the model of this name.

        Raises:
            ApiError: 404 model_not_found.
        """
        model = self._models.get(name)
        if model is None:
            raise ApiError(model_not_found(name))
        return model

    @contextmanager
    def held(self, name: str | None) -> Iterator[ServedModel]:
        """Find a model and keep its engine alive inside the `with`, even if it is replaced meanwhile.

        Raises:
            ApiError: 404 model_not_found; 400 if no name is given where one is needed.
        """
        if name is None and not self._allows_default:
            raise ApiError(missing_model())
        with self._lock:
            model = self.default if name is None else self.get(name)
            model.users += 1
        try:
            yield model
        finally:
            with self._lock:
                model.users -= 1
            self._released.set()

    def put(self, model: ServedModel) -> ServedModel | None:
        """Serve `model` under its name from now on; return the one that had the name, which requests may still hold."""
        with self._lock:
            before = self._models.get(model.name)
            self._models[model.name] = model
        return before

    def remove(self, name: str) -> ServedModel:
        """Serve a model no longer and return it; requests may still hold it.

        Raises:
            ApiError: 404 model_not_found.
        """
        with self._lock:
            model = self.get(name)
            del self._models[name]
        return model

    async def unused(self, model: ServedModel) -> None:
        """Return when no request holds `model` any more."""
        while model.users:
            self._released.clear()
            await self._released.wait()
