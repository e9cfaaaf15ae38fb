"""Loads checkpoints beside the models that serve, and puts each in its place once it is ready. Nothing waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from turnwise_server.api.errors import ApiError, default_model_needed, model_is_loading
from turnwise_server.api.models.served import ServedModel, ServedModels
from turnwise_server.log import get_logger

LoadModel = Callable[[str, str], Awaitable[ServedModel]]
"""From the name to serve under and the directory to the loaded model."""


class ModelSwaps:
    """Owns the engines of the served models: what is loaded here is closed here."""

    def __init__(self, models: ServedModels, load: LoadModel) -> None:
        self._models = models
        self._load = load
        self._loading: dict[str, asyncio.Task[ServedModel]] = {}
        self._retiring: dict[asyncio.Task[None], ServedModel] = {}

    async def put(self, name: str, source: str) -> ServedModel:
        """Load a model and serve it under `name`; what had the name serves until then, and its requests to their end.

        The caller may stop waiting: a load that has begun goes on.

        Raises:
            ApiError: 409, the name is being loaded already.
            ConfigurationError: the model cannot be served; what had the name still is.
            EngineDeadError: the engine ended while it loaded; likewise.
        """
        if name in self._loading:
            raise ApiError(model_is_loading(name))
        task = asyncio.create_task(self._put(name, source))
        self._loading[name] = task
        task.add_done_callback(lambda _: self._loading.pop(name))
        return await asyncio.shield(task)

    def remove(self, name: str) -> None:
        """Serve a model no longer; its requests are finished.

        Raises:
            ApiError: 404 model_not_found; 409 for the default model.
        """
        if self._models.get(name) is self._models.default:
            raise ApiError(default_model_needed(name))
        self._retire(self._models.remove(name))

    async def close(self) -> None:
        """End every load and every engine."""
        tasks = [*self._loading.values(), *self._retiring]
        retired = list(self._retiring.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(model.engine.close() for model in (*self._models, *retired)))

    async def _put(self, name: str, source: str) -> ServedModel:
        model = await self._load(name, source)
        before = self._models.put(model)
        get_logger().info("model_loaded", model=name, fingerprint=model.system_fingerprint)
        if before is not None:
            self._retire(before)
        return model

    def _retire(self, model: ServedModel) -> None:
        task = asyncio.create_task(self._close_when_unused(model))
        self._retiring[task] = model
        task.add_done_callback(self._retiring.pop)

    async def _close_when_unused(self, model: ServedModel) -> None:
        await self._models.unused(model)
        await model.engine.close()
        get_logger().info("model_closed", model=model.name, fingerprint=model.system_fingerprint)
