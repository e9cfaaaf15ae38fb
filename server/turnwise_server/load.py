"""Loads models as the settings say: an engine that runs, and the chat layer in front of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from turnwise_server.api.errors import shorten
from turnwise_server.api.models.served import ServedModel
from turnwise_server.chat.model import ChatModel
from turnwise_server.config import Settings
from turnwise_server.engine.base import Engine
from turnwise_server.errors import CheckpointError


async def load_model(settings: Settings, name: str, source: str) -> ServedModel:
    """Return the model of a directory (or hub name), ready to serve under `name`.

    Raises:
        ConfigurationError: the model cannot be served; nothing of it is left behind.
        EngineDeadError: the engine ended while it loaded.
    """
    try:
        return await _load(settings, name, source)
    except OSError as error:
        raise CheckpointError(f"cannot read {shorten(source)!r}: {error.strerror or error}") from error


async def _load(settings: Settings, name: str, source: str) -> ServedModel:
    engine = make_engine(settings, source)
    try:
        info = await engine.start()
        chat = await asyncio.to_thread(ChatModel.load, source, engine, info)
    except BaseException:
        await engine.close()
        raise
    return ServedModel(name, source, engine, chat)


def make_engine(settings: Settings, model: str) -> Engine:
    """Return the engine that the settings ask for, not started.

    Raises:
        ConfigurationError: the fake engine's script or tokenizer cannot be read.
    """
    if settings.engine == "fake":
        from turnwise_server.engine.fake_script import FakeScript, load_fake_engine

        return load_fake_engine(
            Path(model),
            FakeScript.read(settings.fake_script),
            context_length=settings.context_length,
            max_batch=settings.max_batch,
            max_queued_requests=settings.max_queued_requests,
        )
    from turnwise_server.engine.process_engine import ProcessEngine

    return ProcessEngine(
        model,
        device=settings.device,
        dtype=settings.dtype,
        quantization=settings.quantization,
        threads=settings.threads,
        max_batch=settings.max_batch,
        kv_memory_mb=settings.kv_memory_mb,
        context_length=settings.context_length,
        max_queued_requests=settings.max_queued_requests,
        max_queued_tokens=settings.max_queued_tokens,
        prefill_chunk=settings.prefill_chunk,
    )
