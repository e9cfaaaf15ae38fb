"""Checks what can be wrong with the settings before a model is loaded or an address taken."""

from __future__ import annotations

import os
from pathlib import Path

from turnwise_server.auth import KeyRing
from turnwise_server.config import Settings
from turnwise_server.errors import ConfigurationError


def check_access(settings: Settings) -> KeyRing:
    """Return the keys of a server that may start: others can reach it only with a key, or if that was asked for.

    Raises:
        ConfigurationError: the key file cannot be used, or there are no keys where they are needed.
    """
    keys = KeyRing.load(settings.api_keys_file, [key.get_secret_value() for key in settings.api_keys])
    if not settings.is_loopback and not keys and not settings.insecure:
        raise ConfigurationError(
            f"refusing to listen on {settings.host} without API keys, where others can reach it: make a key with "
            "`turnwise-server hash-key >> keys.txt` and pass --api-keys-file keys.txt, or pass --insecure"
        )
    return keys


def check_stores(settings: Settings) -> None:
    """Check the addresses of the database and of Redis, and that their clients are installed. Connects to nothing.

    Raises:
        ConfigurationError: one of them cannot be used.
    """
    from turnwise_server.limits.from_settings import make_limiter
    from turnwise_server.store.connect import open_database

    make_limiter(settings)
    open_database(settings.database_url.get_secret_value() if settings.database_url else None)


def check_policy(settings: Settings) -> None:
    """Check the policy, and load its detectors, but for the weights of language models. Asks no other server.

    Raises:
        ConfigurationError: the policy is wrong, or a detector cannot be used.
    """
    from turnwise_server.chat.refusal.policy_file import DEFAULT_POLICY, load_policy
    from turnwise_server.moderation.make_detector import check_detector

    policy = load_policy(settings.policy or DEFAULT_POLICY).policy
    for rule in () if settings.unsafe_no_classifier else policy.detectors:
        check_detector(rule)


def check_traces(settings: Settings) -> None:
    """Check that traces can be sent the way they are asked for. Sends nothing.

    Raises:
        ConfigurationError: the extra is not installed, or the protocol is none of ours.
    """
    from turnwise_server.api.telemetry.tracing import make_tracer

    make_tracer(settings.otlp_endpoint, os.environ)


def check_models(settings: Settings) -> list[str]:
    """Check the device, the quantization, and each model directory's files, tokenizer and chat template.

    Weights are not read. Returns the models that were left out: names on the Hugging Face hub, since a check
    downloads nothing.

    Raises:
        ConfigurationError: the server would not start like this.
    """
    if settings.engine == "torch":
        from turnwise_server.engine.hardware import check_quantization, choose_device

        check_quantization(settings.quantization, choose_device(settings.device))
    hub_names = [model for model in settings.named_models.values() if _is_hub_name(model)]
    for model in settings.named_models.values():
        if model not in hub_names or settings.engine == "fake":
            _check_directory(settings, model)
    return hub_names


def _is_hub_name(model: str) -> bool:
    return model.count("/") == 1 and not model.startswith((".", "~", "/")) and not Path(model).exists()


def _check_directory(settings: Settings, model: str) -> None:
    if settings.engine == "fake":
        from turnwise_server.load import make_engine

        make_engine(settings, model)
    else:
        from turnwise_server.engine.checkpoint import open_checkpoint
        from turnwise_server.engine.loading import choose_context_length

        choose_context_length(open_checkpoint(model), settings.context_length)
    from turnwise_server.chat.checkpoint_files import load_generation_defaults, load_tokenizer
    from turnwise_server.chat.template import ChatTemplate

    ChatTemplate(load_tokenizer(model), source=model)
    load_generation_defaults(model)
