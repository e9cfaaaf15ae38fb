"""Says what the policy says in many ways, so that a model learns the rule and not one sentence."""

import random
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

import yaml

from turnwise_training.policy import Policy, PolicyCategory

_WRITTEN: Final[dict[str, Any]] = yaml.safe_load(
    files(__package__).joinpath("replies.yaml").read_text("utf-8")
)
LANGUAGE: Final = "en"
"""What the written requests and replies are in."""
COMPLYING: Final[list[str]] = _WRITTEN["complying"]
"""How a reply begins that does what it should refuse; without anything of what was asked for."""
BROKEN: Final[dict[str, list[str]]] = _WRITTEN["broken"]
"""By principle, replies that break it."""


def spoken(texts: Mapping[str, str], policy: Policy) -> str:
    """Return a text of the policy in the language of the requests or, where it has none, in its default one."""
    return texts.get(LANGUAGE) or texts.get(policy.language_default, "")


def refusal(category: PolicyCategory, policy: Policy, draw: random.Random) -> str:
    """Return the category's refusal, mostly in other words: what is refused, then what is offered in its place.

    One of the two halves is always the policy's own. A text in another language stays as it is.
    """
    text = spoken(category.refusal, policy)
    if LANGUAGE not in category.refusal:
        return text
    written = _WRITTEN["refusal"]
    first, *rest = re.split(r"(?<=[.!?])\s+", text)
    own = " ".join(rest)
    halves = [(first, own), (first, own), (first, draw.choice(written["offers"]))]
    if own:
        halves.append((draw.choice(written["instead"]), own))
    no, instead = draw.choice(halves)
    if draw.random() < 0.5:
        begins_with_i = no.startswith(("I ", "I'"))
        no = f"{draw.choice(written['before_i'] if begins_with_i else written['openings'])} {no}"
    closing = draw.choice(written["closings"]) if draw.random() < 0.25 else ""
    return " ".join(part for part in (no, instead, closing) if part)


def safe_completion(category: PolicyCategory, policy: Policy, draw: random.Random) -> str:
    """Return the category's safe completion, whole and with its resources, behind a warm sentence or none."""
    text = spoken(category.safe_completion, policy)
    if LANGUAGE not in category.safe_completion or draw.random() < 0.3:
        return text
    return f"{draw.choice(_WRITTEN['safe_completion']['openings'])} {text}"


def cautioned(category: PolicyCategory, policy: Policy, answer: str) -> str:
    """Return an answer behind the category's caution."""
    return f"{spoken(category.caution, policy)}\n\n{answer}"
