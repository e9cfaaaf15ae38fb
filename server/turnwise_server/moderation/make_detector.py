"""From what the policy says of a detector to the detector itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from turnwise_server.chat.refusal.policy_stages import Detector as DetectorRule
from turnwise_server.errors import ConfigurationError
from turnwise_server.moderation.detector import Detector
from turnwise_server.moderation.http_detector import load_http_detector
from turnwise_server.moderation.phrase_detector import PhraseDetector


def make_detector(rule: DetectorRule) -> Detector:
    """Make a detector of a policy that was checked. Loading weights takes a second, or minutes; any thread may do it.

    Raises:
        ConfigurationError: it cannot be made; the message names the detector and the remedy.
    """
    with _named(rule):
        return _make(rule)


def check_detector(rule: DetectorRule) -> None:
    """Check a detector: make it, but for the weights of a language model, of which only the digest is compared.

    Raises:
        ConfigurationError: as of `make_detector`.
    """
    if rule.kind != "hf_causal_guard":
        asyncio.run(make_detector(rule).close())
        return
    from turnwise_server.moderation.guard_files import verify_guard

    with _named(rule):
        verify_guard(Path(rule.path or "").expanduser(), sha256=rule.sha256)


@contextmanager
def _named(rule: DetectorRule) -> Iterator[None]:
    """Have an error name the detector."""
    try:
        yield
    except ConfigurationError as error:
        raise type(error)(f"detector {rule.id!r} of the policy: {error}") from error


def _make(rule: DetectorRule) -> Detector:
    match rule.kind:
        case "phrases":
            return PhraseDetector(rule.id, rule.phrases or {})
        case "http":
            return load_http_detector(rule)
        case "hf_sequence_classification":
            from turnwise_server.moderation.classifier import load_classifier

            return load_classifier(rule)
        case "hf_causal_guard":
            from turnwise_server.moderation.causal_guard import load_causal_guard

            return load_causal_guard(rule)
