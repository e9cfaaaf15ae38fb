"""What the policy that ships with Turnwise promises."""

from turnwise_server.chat.refusal.policy_categories import Category
from turnwise_server.chat.refusal.policy_file import DEFAULT_POLICY, load_policy
from turnwise_server.chat.refusal.policy_types import OPENAI_CATEGORIES

POLICY = load_policy(DEFAULT_POLICY).policy
CATEGORIES = {category.id: category for category in POLICY.categories}


def of_openai(name: str) -> Category:
    return next(category for category in POLICY.categories if name in category.openai)


def test_every_openai_category_is_acted_on_in_requests_and_replies() -> None:
    for name in OPENAI_CATEGORIES:
        category = of_openai(name)
        assert category.input.action in {"refuse", "safe_complete"}
        assert category.output.action == "block"


def test_what_does_grave_harm_is_not_let_through_unchecked() -> None:
    assert {of_openai(name).on_error for name in OPENAI_CATEGORIES} == {"closed"}


def test_nobody_overrides_the_protection_of_children() -> None:
    assert of_openai("sexual/minors").id in POLICY.override.never
    assert not POLICY.override.allow_scopes


def test_a_person_in_crisis_gets_help_wherever_they_live() -> None:
    completion = CATEGORIES["self_harm"].safe_completion
    assert completion
    assert "emergency number" in completion.text["en"]
    assert "findahelpline.com" in completion.resources["default"]["en"]
    assert "988" in completion.resources["US"]["en"]
    assert "988" in completion.resources["CA"]["en"]
    assert "116 123" in completion.resources["GB"]["en"]
    assert "116 123" in completion.resources["IE"]["en"]


def test_questions_of_health_law_and_money_are_answered_with_care_and_never_refused() -> None:
    for name in ("advice_medical", "advice_legal", "advice_financial", "advice"):
        assert CATEGORIES[name].input.action == "caution"
        assert CATEGORIES[name].output.action == "allow"
        assert CATEGORIES[name].on_error == "open"


def test_the_constitution_speaks_of_limits_honesty_and_over_refusal() -> None:
    principles = {principle.id: principle for principle in POLICY.principles}
    assert {"know-your-limits", "honesty", "do-not-over-refuse"} <= principles.keys()
    assert all(principle.critique and principle.revision for principle in POLICY.principles)


def test_every_refusal_is_brief_and_offers_something() -> None:
    for category in POLICY.categories:
        if category.refusal:
            assert len(category.refusal.text["en"].split()) <= 50
            assert category.refusal.text["en"].count(". ") or ";" in category.refusal.text["en"]
