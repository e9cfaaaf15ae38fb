"""A row that teaches a rule of the policy, and how it is written down. It knows nothing of where rows come from."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from turnwise_training.data import Completion, Conversation, Message, Ranking, to_json

Kind = Literal["refusal", "safe_completion", "caution", "answer", "honesty", "revision", "comparison"]
"""What the taught reply is; `revision` and `comparison` are a model's work."""


@dataclass(frozen=True)
class Lesson:
    """A demonstration or a preference, with the rule it teaches."""

    row: Conversation | Ranking
    kind: Kind
    source: str
    """Where the request came from."""
    category: str | None = None
    """The policy's category that the request belongs to; None for a harmless one."""
    principle: str | None = None
    """The principle that it follows; None where the policy has none for the category."""

    @property
    def line(self) -> str:
        """Return the row as a line of JSON; readers of rows pass over the columns beside it."""
        about = {
            "kind": self.kind,
            "category": self.category,
            "principle": self.principle,
            "source": self.source,
        }
        return json.dumps(to_json(self.row) | about, ensure_ascii=False) + "\n"


def demonstration(asked: str, reply: str) -> Conversation:
    """Return the conversation of one question and its reply."""
    return Conversation((*says(asked), {"role": "assistant", "content": reply}))


def preference(asked: str, *, chosen: str, rejected: str, labeler: str) -> Ranking:
    """Return the comparison of two replies to one question."""
    return Ranking(says(asked), (Completion(chosen, 1), Completion(rejected, 2)), labeler=labeler)


def says(asked: str) -> tuple[Message, ...]:
    """Return the prompt of one user message."""
    return ({"role": "user", "content": asked},)


def distinct(lessons: Iterable[Lesson]) -> list[Lesson]:
    """Return the lessons in order, each row once."""
    return list({json.dumps(to_json(lesson.row)): lesson for lesson in lessons}.values())
