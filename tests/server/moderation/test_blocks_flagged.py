"""Requests that want stopped what is flagged: what OpenAI has a name for ends a reply, even if the policy does less."""

from __future__ import annotations

from typing import Any

import pytest

from support.policies import changed_policy
from turnwise_server.chat.refusal.policy import Policy
from turnwise_server.chat.refusal.policy_types import Stage
from turnwise_server.chat.refusal.verdict import Action, ModerationUnavailableError
from turnwise_server.moderation.decide import decide
from turnwise_server.moderation.readings import CategoryScore, Reading


def policy(category: str, *, request: Action = "allow", reply: Action = "allow") -> Policy:
    """Return the default policy with other actions for a category."""
    rules: dict[str, Any] = {
        "input": {"threshold": "detector", "action": request},
        "output": {"threshold": "detector", "action": reply},
    }
    return changed_policy({}, {category: rules}).policy


def reached(*names: str) -> Reading:
    return Reading({name: CategoryScore(0.9, is_reached=True, detector="d") for name in names})


@pytest.mark.parametrize("action", ["allow", "annotate"])
@pytest.mark.parametrize(("stage", "stop"), [("input", "refuse"), ("output", "block")])
def test_what_the_policy_lets_pass_is_stopped(stage: Stage, stop: Action, action: Action) -> None:
    weak = policy("harassment", request=action, reply=action)
    assert decide(weak, stage, reached("harassment")).action == action
    verdict = decide(weak, stage, reached("harassment"), blocks_flagged=True)
    assert (verdict.action, verdict.category) == (stop, "harassment")


def test_help_is_said_where_the_category_has_it() -> None:
    verdict = decide(policy("self_harm"), "input", reached("self_harm"), blocks_flagged=True)
    assert verdict.action == "safe_complete"


def test_a_reply_is_not_made_again() -> None:
    again = policy("weapons", reply="regenerate")
    assert decide(again, "output", reached("weapons"), blocks_flagged=True).action == "block"


def test_what_is_not_found_passes() -> None:
    assert decide(policy("harassment"), "input", reached(), blocks_flagged=True).action == "allow"


def test_a_category_without_a_name_of_openais_is_left_to_the_policy() -> None:
    default = changed_policy({}).policy
    assert decide(default, "input", reached("advice_legal"), blocks_flagged=True).action == "caution"


def test_a_gap_counts_even_where_the_policy_lets_pass() -> None:
    gap = Reading(unchecked=frozenset({"harassment"}))
    assert decide(policy("harassment"), "input", gap).action == "allow"
    with pytest.raises(ModerationUnavailableError):
        decide(policy("harassment"), "input", gap, blocks_flagged=True)
