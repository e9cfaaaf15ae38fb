"""What a check of text comes to, and what happens when none can be had. It knows no detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from turnwise_server.errors import TurnwiseError

Action = Literal["allow", "annotate", "caution", "safe_complete", "refuse", "regenerate", "block"]
"""From the weakest to the strongest."""

ACTIONS: Final[tuple[Action, ...]] = get_args(Action)

_STOPPING: frozenset[Action] = frozenset({"safe_complete", "refuse", "regenerate", "block"})


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a request or a reply something was found, for the audit."""

    origin: str = ""
    """Which kind of text it is (`chat.refusal.texts.Origin`); "" for a reply."""
    turn: int = 0
    """Index of the client's message, or of the reply's choice."""
    form: str = "canonical"
    """Which reading of the text (`chat.refusal.normalise.Form.name`)."""
    start: int = 0
    end: int = 0
    """The window, in characters of that reading."""


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
    is_overridden: bool = False
    """Whether the policy asked for a stronger action that the request may override."""
    place: Place | None = None
    """Where the category was found."""

    @property
    def strength(self) -> int:
        """The greater of two verdicts is the one that counts."""
        return ACTIONS.index(self.action)

    @property
    def stops(self) -> bool:
        """Whether the model's words must not reach the client, or no more of them."""
        return self.action in _STOPPING


class ModerationUnavailableError(TurnwiseError):
    """Text could not be checked that may not be shown unchecked; the same request may succeed in a moment."""
