"""Turns a verified checkpoint into an `EngineCore`, ready to step."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch

from turnwise_server.engine.base import EngineInfo
from turnwise_server.engine.checkpoint import Checkpoint, fingerprint, open_checkpoint
from turnwise_server.engine.core import CONTEXTS_NEEDED, EngineCore
from turnwise_server.engine.forward import ModelForward
from turnwise_server.engine.grammar import GrammarCompiler
from turnwise_server.engine.hardware import (
    available_memory,
    check_quantization,
    choose_device,
    choose_dtype,
    use_threads,
)
from turnwise_server.engine.kv_cache import round_up
from turnwise_server.engine.kv_pool import batch_rows
from turnwise_server.engine.options import EngineOptions
from turnwise_server.errors import CheckpointError, ConfigurationError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_DEFAULT_CONTEXT = 2048
"""For models that do not say, such as those with relative positions only."""

_MEMORY_SHARE = {"cpu": 0.3, "cuda": 0.8}
"""How much of the memory that is free after loading the cache may come to take."""

_LOADING_FAULTS = (ValueError, KeyError, TypeError, AttributeError, RuntimeError, OSError, ImportError)
"""What transformers raises where configuration and code, or configuration and weights, do not fit."""


def load_engine(options: EngineOptions) -> tuple[EngineCore, EngineInfo]:
    """Load a model and return its engine.

    Raises:
        CheckpointError: the model cannot be served.
        ConfigurationError: an option does not fit the machine or the model.
    """
    use_threads(options.threads)
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device)
    check_quantization(options.quantization, device)
    number_format = str(dtype).removeprefix("torch.")
    if options.quantization != "none":
        number_format = f"{options.quantization}/{number_format}"
    checkpoint = open_checkpoint(options.model)
    context_length = choose_context_length(checkpoint, options.context_length)
    with ThreadPoolExecutor(1) as hashing:
        digest = hashing.submit(fingerprint, checkpoint, number_format)
        forward = load_forward(checkpoint, device, dtype, context_length, options.quantization)
        grammars = GrammarCompiler.load(
            checkpoint.path, vocab_size=forward.vocab_size, stop_token_ids=checkpoint.stop_token_ids
        )
        info = EngineInfo(
            context_length=context_length,
            vocab_size=forward.vocab_size,
            fingerprint=digest.result(),
            dtype=number_format,
            device=str(device),
            stop_token_ids=checkpoint.stop_token_ids,
            takes_grammars=grammars is not None,
        )
    core = EngineCore(
        forward,
        context_length=context_length,
        max_batch=options.max_batch,
        kv_memory_bytes=_kv_memory(options, forward, context_length),
        prefill_chunk=options.prefill_chunk,
        grammars=grammars,
    )
    return core, info


def load_forward(
    checkpoint: Checkpoint,
    device: torch.device,
    dtype: torch.dtype,
    context_length: int,
    quantization: str = "none",
) -> ModelForward:
    """Load a checkpoint's weights and return the fastest forward that computes its architecture.

    Raises:
        CheckpointError: the engine cannot serve the architecture, or the weights do not fit it.
        ConfigurationError: the architecture has nothing that the quantization takes.
    """
    from turnwise_server.engine.int8_modules import round_module
    from turnwise_server.engine.llama_forward import LlamaForward
    from turnwise_server.engine.llama_weights import can_fuse, fuse
    from turnwise_server.engine.module_check import check_forward
    from turnwise_server.engine.module_forward import ModuleForward

    module = load_module(checkpoint, device, dtype)
    if quantization == "int8":
        round_module(module)
    if can_fuse(module):
        return LlamaForward(fuse(module, context_length))
    with torch.inference_mode():
        forward = ModuleForward(module)
        check_forward(module, forward)
    return forward


def load_module(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """Load a checkpoint as a `transformers` module, without running any code of the checkpoint's own.

    Raises:
        CheckpointError: the architecture is unknown or no causal model, or the weights do not fit it.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    from transformers.utils import logging

    file = checkpoint.path / "config.json"
    model_type, architectures = checkpoint.config["model_type"], checkpoint.config.get("architectures") or []
    if model_type not in CONFIG_MAPPING_NAMES:
        raise CheckpointError(
            f"{file} names the model type {model_type!r}, which the installed transformers does not know. "
            "Upgrade transformers, or choose another model; code that comes with a model is never run."
        )
    causal = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type)
    if causal is None or (architectures and causal not in architectures):
        named = ", ".join(map(str, architectures)) or model_type
        raise CheckpointError(
            f"{file} describes {named}, which is not a causal language model. Choose a model that generates text."
        )
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        module, report = AutoModelForCausalLM.from_pretrained(
            checkpoint.path,
            dtype=dtype,
            attn_implementation="sdpa" if _takes_sdpa(model_type) else "eager",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except (*_LOADING_FAULTS, StrictDataclassError) as error:
        raise CheckpointError(
            f"{checkpoint.path} cannot be loaded: {error}. Check {file.name} against the weights, or save it again."
        ) from error
    _check_weights(checkpoint, report)
    return module.to(device).eval()


def _check_weights(checkpoint: Checkpoint, report: dict[str, object]) -> None:
    """Refuse a model of which some weights would be random."""
    names = ", ".join(file.name for file in checkpoint.weight_files[:3])
    for kind, verb in (("mismatched_keys", "have another shape in"), ("missing_keys", "are missing from")):
        keys = sorted(str(key[0] if isinstance(key, tuple) else key) for key in report[kind])  # type: ignore[attr-defined]
        if keys:
            raise CheckpointError(
                f"{len(keys)} weights that config.json asks for {verb} {checkpoint.path / names}, such as {keys[0]!r}. "
                "config.json and the weights belong to different models: download or save the model again."
            )


def _takes_sdpa(model_type: str) -> bool:
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    architecture = AutoModelForCausalLM._model_mapping[CONFIG_MAPPING[model_type]]  # noqa: SLF001
    return bool(architecture._supports_sdpa)  # noqa: SLF001


def choose_context_length(checkpoint: Checkpoint, wanted: int | None) -> int:
    """Return the longest prompt plus reply, in tokens: as wanted, else what the model was made for.

    Raises:
        ConfigurationError: more is wanted than the model was made for.
    """
    most = checkpoint.context_length
    if wanted is None:
        return most or _DEFAULT_CONTEXT
    if most and wanted > most:
        raise ConfigurationError(
            f"A context of {wanted} tokens was asked for, but {checkpoint.path / 'config.json'} allows {most}. "
            f"Ask for {most} or fewer."
        )
    return wanted


def _kv_memory(options: EngineOptions, forward: ModelForward, context_length: int) -> int:
    """Return the cache's budget in bytes: as told, or what it could ever use within its share of free memory."""
    if options.kv_memory_mb is not None:
        return options.kv_memory_mb * 2**20
    form = forward.kv_format
    most = form.bytes_per_token * round_up(context_length) * (batch_rows(options.max_batch) + CONTEXTS_NEEDED)
    return min(most, int(available_memory(form.device) * _MEMORY_SHARE[form.device.type]))
