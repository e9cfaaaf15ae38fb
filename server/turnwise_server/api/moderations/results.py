"""From what the detectors say of a text to OpenAI's result. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from turnwise_server.api.moderations.wire import ModerationResult
from turnwise_server.chat.refusal.policy import Policy
from turnwise_server.chat.refusal.policy_categories import Category
from turnwise_server.chat.refusal.policy_types import OPENAI_CATEGORIES
from turnwise_server.moderation.readings import LabelScore, Reading

_UNKNOWN = LabelScore()


def result_of(reading: Reading) -> ModerationResult:
    """Return a reading under OpenAI's names alone: categories that only the policy knows flag nothing."""
    labels = {name: reading.labels.get(name, _UNKNOWN) for name in OPENAI_CATEGORIES}
    return ModerationResult(
        flagged=any(label.is_reached for label in labels.values()),
        categories={name: label.is_reached for name, label in labels.items()},
        category_scores={name: label.score for name, label in labels.items()},
        category_applied_input_types={
            name: ["text"] if name in reading.labels else [] for name in OPENAI_CATEGORIES
        },
    )


def unscored(policy: Policy, reading: Reading) -> Iterator[Category]:
    """Yield the categories with a name of OpenAI's that should have been looked for, and could not be."""
    return (each for each in policy.categories if each.openai and each.id in reading.unchecked)
