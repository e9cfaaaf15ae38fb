"""What a model is loaded with. Light: the server's process builds it, the engine's process obeys it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How to load and run one model; `ProcessEngine` says what each means."""

    model: str
    device: str = "auto"
    dtype: str = "auto"
    threads: int | None = None
    max_batch: int = 32
    kv_memory_mb: int | None = None
    context_length: int | None = None
    prefill_chunk: int = 512
    quantization: str = "none"
