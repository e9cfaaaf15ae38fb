"""The policy: what is refused, how it is said, and what training teaches. docs/policy.md tells what each key means.

Its JSON schema, policies/policy.schema.json, is the contract with training; a test holds these classes to it. What no
schema can say is in `policy_checks`, files are `policy_file`'s business.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from turnwise_server.chat.refusal.policy_categories import Category, Principle
from turnwise_server.chat.refusal.policy_stages import (
    Audit,
    Detector,
    InputStage,
    Leak,
    Normaliser,
    OutputStage,
    Override,
    RefusalStyle,
)
from turnwise_server.chat.refusal.policy_types import Id, Language, Part


class Policy(Part):
    """One policy file."""

    version: Literal[1]
    """The format of the file."""
    name: Id
    """What the policy is called."""
    language_default: Language = "en"
    """The language of those whose own has no text."""
    principles: tuple[Principle, ...] = Field(min_length=1)
    """The constitution."""
    categories: tuple[Category, ...] = Field(min_length=1)
    """The kinds of harm, gravest first: where several ask for the same action, the first one's text is said."""
    detectors: tuple[Detector, ...] = Field(min_length=1)
    """What scores texts."""
    shadow: tuple[Id, ...] = ()
    """Detectors whose scores are recorded and compared, and decide nothing."""
    normaliser: Normaliser = Normaliser()
    """What is undone before a text is scored."""
    input: InputStage = InputStage()
    """Which texts of a request are scored."""
    output: OutputStage = OutputStage()
    """How replies are checked."""
    leak: Leak = Leak()
    """How replies that repeat the system prompt are recognised."""
    refusal: RefusalStyle = RefusalStyle()
    """Where a refusal stands in a reply."""
    override: Override = Override()
    """Who may be answered all the same."""
    audit: Audit = Audit()
    """Where decisions are recorded."""
