"""From a reading to a verdict: the strongest action wins, gaps close or open as the policy says."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.policies import changed_policy
from turnwise_server.chat.refusal.verdict import ACTIONS, ModerationUnavailableError
from turnwise_server.moderation.decide import decide
from turnwise_server.moderation.readings import CategoryScore, Reading

POLICY = changed_policy({}).policy
CATEGORIES = [category.id for category in POLICY.categories]


def reading(*reached: str, unchecked: tuple[str, ...] = ()) -> Reading:
    found = {name: CategoryScore(0.9, name in reached, "d") for name in CATEGORIES}
    return Reading(found, unchecked=frozenset(unchecked))


def test_nothing_found_is_allowed() -> None:
    verdict = decide(POLICY, "input", reading())
    assert (verdict.action, verdict.category, verdict.stops) == ("allow", None, False)


@given(st.sets(st.sampled_from(CATEGORIES)))
def test_the_strongest_action_wins_and_of_equals_the_first_category(reached: set[str]) -> None:
    verdict = decide(POLICY, "input", reading(*reached))
    actions = [
        (category.input.action, category.id) for category in POLICY.categories if category.id in reached
    ]
    strongest = max((ACTIONS.index(action) for action, _ in actions), default=0)
    assert ACTIONS.index(verdict.action) == strongest
    if verdict.category is not None:
        assert verdict.category == next(
            name for action, name in actions if ACTIONS.index(action) == strongest
        )


def test_despair_is_met_with_a_safe_completion() -> None:
    assert decide(POLICY, "input", reading("self_harm")).action == "safe_complete"


def test_an_exempt_category_is_noted_and_stops_nothing() -> None:
    verdict = decide(POLICY, "input", reading("weapons"), exempt={"weapons"})
    assert (verdict.action, verdict.category, verdict.is_overridden) == ("annotate", "weapons", True)


def test_a_category_that_is_not_exempt_stops_beside_one_that_is() -> None:
    verdict = decide(POLICY, "input", reading("weapons", "sexual_minors"), exempt={"weapons"})
    assert (verdict.action, verdict.category) == ("refuse", "sexual_minors")


def test_a_gap_in_a_grave_category_lets_nothing_pass() -> None:
    with pytest.raises(ModerationUnavailableError):
        decide(POLICY, "input", reading(unchecked=("weapons",)))


def test_what_was_found_stops_in_spite_of_a_gap() -> None:
    assert decide(POLICY, "input", reading("hate", unchecked=("weapons",))).category == "hate"


def test_a_gap_in_a_category_that_fails_open_is_noted() -> None:
    verdict = decide(POLICY, "input", reading(unchecked=("advice_legal",)))
    assert (verdict.action, verdict.is_unchecked) == ("allow", True)


def test_a_gap_where_nothing_would_be_done_is_none() -> None:
    verdict = decide(POLICY, "output", reading(unchecked=("advice_legal",)))
    assert not verdict.is_unchecked


def test_a_gap_in_an_exempt_category_is_noted() -> None:
    verdict = decide(POLICY, "input", reading(unchecked=("weapons",)), exempt={"weapons"})
    assert (verdict.action, verdict.is_unchecked) == ("allow", True)


def test_a_reply_is_cut_by_the_actions_of_the_output() -> None:
    changed: dict[str, Any] = {"weapons": {"output": {"threshold": "detector", "action": "regenerate"}}}
    policy = changed_policy({}, changed).policy
    assert decide(policy, "output", reading("weapons")).action == "regenerate"
