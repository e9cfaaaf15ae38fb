"""Makes a verdict of a reading, as the policy orders: the strongest action of the categories that were found. Pure."""

from __future__ import annotations

from collections.abc import Container, Set
from dataclasses import replace

from turnwise_server.chat.refusal.policy import Policy
from turnwise_server.chat.refusal.policy_categories import Category
from turnwise_server.chat.refusal.policy_types import Stage
from turnwise_server.chat.refusal.verdict import Action, ModerationUnavailableError, Verdict
from turnwise_server.moderation.readings import Reading

_FINAL: frozenset[Action] = frozenset({"safe_complete", "refuse", "block"})
"""What ends a reply with the words of the category."""


def decide(
    policy: Policy,
    stage: Stage,
    reading: Reading,
    *,
    exempt: Container[str] = (),
    blocks_flagged: bool = False,
) -> Verdict:
    """Return what the policy orders for a text of which `reading` is known.

    Where several categories ask for the same action, the one that stands first in the policy is named.

    Args:
        policy: the policy in force.
        stage: who wrote the text, a client or the model.
        reading: what the detectors say of the text.
        exempt: the categories that the request overrides: they are noted, and stop nothing.
        blocks_flagged: whether the request wants stopped what OpenAI has a name for, even if the policy lets it pass.

    Raises:
        ModerationUnavailableError: nothing was found that stops the text, but a category that fails closed could not be
            looked for.
    """
    scores = {name: found.score for name, found in reading.categories.items()}
    strongest = Verdict(scores=scores)
    rules = [(each.id, _action(each, stage, blocks_flagged=blocks_flagged)) for each in policy.categories]
    for category, action in rules:
        found = reading.categories.get(category)
        if found is None or not found.is_reached:
            continue
        verdict = Verdict(action, category, scores, place=found.place)
        if verdict.stops and category in exempt:
            verdict = Verdict("annotate", category, scores, is_overridden=True, place=found.place)
        if verdict.strength > strongest.strength:
            strongest = verdict
    if strongest.stops:
        return strongest
    gaps = {name for name, action in rules if name in reading.unchecked and action != "allow"}
    return _with_gaps(policy, gaps, strongest, exempt)


def _with_gaps(policy: Policy, gaps: Set[str], verdict: Verdict, exempt: Container[str]) -> Verdict:
    """Return a verdict that lets the text pass, if it may where not everything was checked.

    Raises:
        ModerationUnavailableError: it may not.
    """
    closed = {category.id for category in policy.categories if category.on_error == "closed"}
    if any(name not in exempt for name in gaps & closed):
        raise ModerationUnavailableError("The text could not be checked. Try again in a moment.")
    return replace(verdict, is_unchecked=bool(gaps))


def _action(category: Category, stage: Stage, *, blocks_flagged: bool) -> Action:
    """Return what is done about a text of the category."""
    action: Action = category.input.action if stage == "input" else category.output.action
    if action in _FINAL or not (blocks_flagged and category.openai):
        return action
    if stage == "output":
        return "block"
    return "safe_complete" if category.safe_completion else "refuse"
