"""A refusal as every route shows it: in which words and fields, and what the signal for programs says. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from turnwise_server.auth import RefusalStyle
from turnwise_server.chat.refusal.guarded_choice import Blocked, Stage
from turnwise_server.chat.refusal.policy_texts import LEAK, LEAK_TEXT, caution_text, stop_text
from turnwise_server.moderation.layer import RefusalLayer

POLICY = "policy"
"""What stands in the place of a category that is not revealed."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Choice `index` ends here because of what the client or the model said; nothing more comes for it.

    What was shown of the choice before is to be taken back: `text` is all that it says.
    """

    index: int
    stage: Stage
    category: str
    """The policy's name for it, or `policy` where it is not revealed."""
    text: str
    style: RefusalStyle
    """Where the text stands: as the reply's content, in its `refusal` field, or in both."""
    retracts: bool
    """Whether something of the choice was shown already."""
    finish_reason: Literal["stop", "content_filter"]
    """A refused question has a whole answer, a cut answer has not."""

    @property
    def content(self) -> str | None:
        """What a whole reply says as its content."""
        return None if self.style == "field" else self.text

    @property
    def refusal(self) -> str | None:
        """What a whole reply says in its field `refusal`."""
        return None if self.style == "content" else self.text

    @property
    def delta(self) -> dict[str, str]:
        """What a stream says: behind words that are taken back, content would look like more of them."""
        if self.retracts:
            return {"refusal": self.text}
        fields = {"content": self.content, "refusal": self.refusal}
        return {name: text for name, text in fields.items() if text is not None}

    @property
    def signal(self) -> dict[str, str]:
        """The value of `x_refusal`."""
        return {"stage": self.stage, "category": self.category}

    @property
    def header(self) -> str:
        """The value of `x-refusal`."""
        return f"{self.stage}/{self.category}"


@dataclass(frozen=True, slots=True)
class Manner:
    """How refusals are put to one client."""

    layer: RefusalLayer
    accept_language: str = ""
    style: RefusalStyle = "content"

    @property
    def language(self) -> str | None:
        """The language that the client names first, if it names one that can be read."""
        first = re.match(r"\s*([A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8}){0,3})\s*(?:[,;]|$)", self.accept_language)
        return first[1] if first else None

    def caution(self, category: str) -> str:
        """Return what an answer to a question of the category begins with."""
        return caution_text(
            self.layer.category(category), self.accept_language, self.layer.policy.language_default
        )

    def refused(self, blocked: Blocked, *, retracts: bool) -> Refused:
        """Return a blocked choice as it is shown; it `retracts` what was shown of it before, if anything was."""
        policy = self.layer.policy
        if blocked.category is None or blocked.category == LEAK:
            text = LEAK_TEXT
        else:
            category = self.layer.category(blocked.category)
            text = stop_text(category, self.accept_language, policy.language_default)
        return Refused(
            index=blocked.index,
            stage=blocked.stage,
            category=(blocked.category or POLICY) if policy.refusal.reveal_category else POLICY,
            text=text,
            style=self.style,
            retracts=retracts,
            finish_reason=blocked.finish_reason,
        )
