"""What a check of text comes to, and what happens when none can be had. It knows no detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from turnwise_server.errors import TurnwiseError

Action = Literal["allow", "annotate", "caution", "redact", "safe_complete", "refuse", "regenerate", "block"]
"""From the weakest to the strongest."""

_STOPPING: frozenset[Action] = frozenset({"safe_complete", "refuse", "regenerate", "block"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the checks of one text decided together: the strongest of their actions."""

    action: Action = "allow"
    category: str | None = None
    """The category of the policy that asked for the action; None if nothing was found."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """How likely the text belongs to each category, 0..1."""
    is_unchecked: bool = False
    """Whether a check was left out that could not be made; its category is one that fails open."""

    @property
    def stops(self) -> bool:
        """Whether the model's words must not reach the client, or no more of them."""
        return self.action in _STOPPING


class ModerationUnavailableError(TurnwiseError):
    """Text could not be checked that may not be shown unchecked; the same request may succeed in a moment."""
