"""Makes a verdict of a reading, as the policy orders: the strongest action of the categories that were found. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import replace

from turnwise_server.chat.refusal.policy import Policy
from turnwise_server.chat.refusal.policy_types import Stage
from turnwise_server.chat.refusal.verdict import Action, ModerationUnavailableError, Verdict
from turnwise_server.moderation.readings import Reading


def decide(policy: Policy, stage: Stage, reading: Reading, *, exempt: Container[str] = ()) -> Verdict:
    """Return what the policy orders for a text of which `reading` is known.

    Where several categories ask for the same action, the one that stands first in the policy is named.

    Args:
        policy: the policy in force.
        stage: who wrote the text, a client or the model.
        reading: what the detectors say of the text.
        exempt: the categories that the request overrides: they are noted, and stop nothing.

    Raises:
        ModerationUnavailableError: nothing was found that stops the text, but a category that fails closed could not be
            looked for.
    """
    scores = {name: found.score for name, found in reading.categories.items()}
    strongest = Verdict(scores=scores)
    for category, action in _rules(policy, stage):
        found = reading.categories.get(category)
        if found is None or not found.is_reached:
            continue
        verdict = Verdict(action, category, scores, place=found.place)
        if verdict.stops and category in exempt:
            verdict = Verdict("annotate", category, scores, is_overridden=True, place=found.place)
        if verdict.strength > strongest.strength:
            strongest = verdict
    return strongest if strongest.stops else _with_gaps(policy, stage, reading, strongest, exempt)


def _with_gaps(
    policy: Policy, stage: Stage, reading: Reading, verdict: Verdict, exempt: Container[str]
) -> Verdict:
    """Return a verdict that lets the text pass, if it may where not everything was checked.

    Raises:
        ModerationUnavailableError: it may not.
    """
    gaps = [name for name, action in _rules(policy, stage) if name in reading.unchecked and action != "allow"]
    closed = {category.id for category in policy.categories if category.on_error == "closed"}
    if any(name in closed and name not in exempt for name in gaps):
        raise ModerationUnavailableError("The text could not be checked. Try again in a moment.")
    return replace(verdict, is_unchecked=bool(gaps))


def _rules(policy: Policy, stage: Stage) -> Iterator[tuple[str, Action]]:
    """Yield each category and what is done about a text of it, in the policy's order."""
    for category in policy.categories:
        yield category.id, category.input.action if stage == "input" else category.output.action
