"""The policy's principles and categories: what training teaches and what the server refuses."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from turnwise_server.chat.refusal.policy_types import (
    Id,
    LocalText,
    OpenAICategory,
    Part,
    Region,
    Text,
    Threshold,
)


class Principle(Part):
    """A rule of the constitution. Training turns it into comparisons; the server shows it."""

    id: Id
    """Its name."""
    text: Text
    """The rule, as an order to the assistant."""
    critique: Text | None = None
    """Training: what a model is asked to find fault with in its own reply. Stands with `revision`."""
    revision: Text | None = None
    """Training: how the model is asked to rewrite that reply."""
    compare: Text
    """Training: the question whose answer says which of two replies is better."""
    weight: float = Field(default=1.0, gt=0, le=100)
    """Its share where several principles score a reply."""
    categories: tuple[Id, ...] = ()
    """The categories whose requests the principle is trained on; none means harmless requests."""


class InputRule(Part):
    """What happens to a request that belongs to the category."""

    threshold: Threshold = "detector"
    """The score from which a message belongs to the category; `detector` takes the one each detector was calibrated to."""  # noqa: E501
    review: float | None = Field(default=None, ge=0, le=1)
    """The score from which a detector with `when` is asked too; below the threshold."""
    action: Literal["allow", "annotate", "caution", "safe_complete", "refuse"]
    """`allow`: nothing, the score is only reported; `annotate`: the audit notes it; `caution`: the reply begins with the caution; `safe_complete`: the safe completion is the reply; `refuse`: the refusal is the reply."""  # noqa: E501


class OutputRule(Part):
    """What happens to a reply that belongs to the category."""

    threshold: Threshold = "detector"
    """As for the input."""
    review: float | None = Field(default=None, ge=0, le=1)
    """As for the input."""
    action: Literal["allow", "annotate", "regenerate", "block"]
    """`allow` and `annotate` as for the input; `regenerate`: a new reply, once and only while nothing was sent, else as `block`; `block`: the reply is cut and the safe completion or the refusal said."""  # noqa: E501


class Refusal(Part):
    """How a category is refused."""

    text: LocalText
    """The reply, by language."""


class SafeCompletion(Part):
    """What is said in place of a refusal to somebody who may be in danger."""

    text: LocalText
    """The reply, by language. `{resources}` stands where the resources belong."""
    resources: dict[Region, LocalText] = Field(json_schema_extra={"additionalProperties": False})
    """Where help is found, by the country code in the client's `accept-language` header; `default` for all others."""


class Caution(Part):
    """What an answer begins with where it is no replacement for professional advice."""

    prefix: LocalText
    """The beginning, by language."""


class Category(Part):
    """A kind of harm, or of question that needs care."""

    id: Id
    """Its name, in the header `x-refusal` and in the audit."""
    openai: tuple[OpenAICategory, ...] = ()
    """The OpenAI categories it covers; each belongs to exactly one category. Its score is the highest of theirs."""
    llama_guard: tuple[Annotated[str, Field(pattern=r"^S([1-9]|1[0-4])$")], ...] = ()
    """The hazard codes of Llama Guard 3 that it covers, S1 to S14; each belongs to one category at most."""
    input: InputRule
    """What happens to requests."""
    output: OutputRule
    """What happens to replies."""
    on_error: Literal["closed", "open"] = "closed"
    """Where a detector that covers it fails: `closed` gives error 503, `open` goes on unchecked and says so."""
    refusal: Refusal | None = None
    """How it is refused; training makes demonstrations of it."""
    safe_completion: SafeCompletion | None = None
    """What is said in place of a refusal; training makes demonstrations of it."""
    caution: Caution | None = None
    """What an answer begins with."""
