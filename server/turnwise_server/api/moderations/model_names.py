"""The name of what judges texts, and the names of OpenAI's that clients know it by. Pure."""

from __future__ import annotations

from typing import Final

from turnwise_server.api.errors import ApiError, model_not_found
from turnwise_server.moderation.layer import RefusalLayer

LOCAL_NAME: Final = "turnwise-safety"
ALIASES: Final = frozenset(
    {
        LOCAL_NAME,
        "omni-moderation-latest",
        "omni-moderation-2024-09-26",
        "text-moderation-latest",
        "text-moderation-stable",
    }
)
"""All of them mean the detectors of the policy in force: there is nothing else to choose."""


def model_name(layer: RefusalLayer) -> str:
    """Return what replies call the detectors of a policy."""
    return f"{LOCAL_NAME}-{layer.policy.name}"


def check_model(name: str | None, layer: RefusalLayer) -> None:
    """Refuse names of anything else; None asks for none in particular.

    Raises:
        ApiError: 404 model_not_found.
    """
    if name is not None and name not in ALIASES and name != model_name(layer):
        raise ApiError(model_not_found(name))
