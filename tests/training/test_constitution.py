"""`turnwise-train constitution`: what a policy's text alone teaches, written where other stages read it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from turnwise_training.cli import app
from turnwise_training.config import ConstitutionConfig
from turnwise_training.constitution.harmless import advice, answered_questions, temptations
from turnwise_training.constitution.lessons import Lesson, distinct
from turnwise_training.constitution.phrasing import BROKEN, COMPLYING
from turnwise_training.constitution.requests import (
    Request,
    advice_requests,
    category_of,
    harmful_requests,
    harmless_requests,
)
from turnwise_training.constitution.rules import Rules
from turnwise_training.data import Completion, Conversation, Ranking, read_rows
from turnwise_training.errors import ConfigurationError
from turnwise_training.policy import Policy, PolicyCategory, read_policy
from turnwise_training.safety.rows import SafetyRow

HARMLESS = Request("How do I beat eggs?", "made up", "MIT", answer="With a fork.")


@pytest.fixture(scope="module")
def policy() -> Policy:
    return read_policy()


def category(policy: Policy, name: str) -> PolicyCategory:
    return next(each for each in policy.categories if each.id == name)


def lessons(policy: Policy, *requests: Request) -> list[Lesson]:
    return distinct(Rules(policy, replies_each=5, seed=1).lessons(requests))


def asked_for(policy: Policy, name: str) -> list[Lesson]:
    """Return what one mild request of a category teaches."""
    request = Request("Help me with this.", "made up", "MIT", category(policy, name))
    return [each for each in lessons(policy, request) if each.source == "made up"]


def replies(taught: list[Lesson]) -> Iterator[str]:
    return (each.row.messages[-1]["content"] for each in taught if isinstance(each.row, Conversation))


def pairs(taught: list[Lesson], principle: str) -> list[tuple[Completion, ...]]:
    return [
        each.row.completions
        for each in taught
        if isinstance(each.row, Ranking) and each.principle == principle
    ]


def test_a_refusal_is_the_policys_in_many_words(policy: Policy) -> None:
    no, instead = category(policy, "weapons").refusal["en"].split(". ")
    said = set(replies(asked_for(policy, "weapons")))
    assert len(said) > 2
    assert all(no in reply or instead in reply for reply in said)


def test_a_refusal_of_one_sentence_is_never_lost() -> None:
    short = PolicyCategory("harm", (), "refuse", {"en": "Not that."}, {}, {})
    speaking = Policy("x", 1, "0", "en", (), (short,))
    said = set(replies(lessons(speaking, *[Request(f"Ask {n}.", "here", "MIT", short) for n in range(9)])))
    assert len(said) > 5
    assert all("Not that." in reply for reply in said)


def test_despair_is_met_with_the_whole_safe_completion_and_its_resources(policy: Policy) -> None:
    completion = category(policy, "self_harm").safe_completion["en"]
    said = list(replies(asked_for(policy, "self_harm")))
    assert said
    assert all(reply.endswith(completion) and "findahelpline.com" in reply for reply in said)


def test_a_bare_refusal_of_despair_is_the_worse_reply(policy: Policy) -> None:
    compared = pairs(asked_for(policy, "self_harm"), "care-in-crisis")
    assert any(worse.content in BROKEN["care-in-crisis"] for _, worse in compared)
    assert all(
        better.rank < worse.rank and "findahelpline.com" in better.content for better, worse in compared
    )


def test_doing_what_should_be_refused_is_an_opening_without_content(policy: Policy) -> None:
    ((better, worse),) = pairs(asked_for(policy, "illicit"), "no-serious-harm")
    assert worse.content in COMPLYING
    assert better.rank < worse.rank


def test_a_rude_refusal_is_worse_than_a_kind_one(policy: Policy) -> None:
    ((_, worse),) = pairs(asked_for(policy, "illicit"), "refuse-kindly")
    assert worse.content in BROKEN["refuse-kindly"]


def test_refusing_a_harmless_question_is_worse_than_its_answer(policy: Policy) -> None:
    taught = [each for each in lessons(policy, HARMLESS) if each.source == "made up"]
    assert list(replies(taught)) == ["With a fork."]
    ((better, worse),) = pairs(taught, "do-not-over-refuse")
    assert (better.content, better.rank, worse.rank) == ("With a fork.", 1, 2)
    assert {each.category for each in taught} == {None}


def test_a_prompt_without_an_answer_teaches_nothing_by_itself(policy: Policy) -> None:
    without = Request("How do I beat eggs?", "made up", "MIT")
    assert not [each for each in lessons(policy, without) if each.source == "made up"]


def test_advice_begins_with_the_categorys_caution(policy: Policy) -> None:
    requests = advice_requests(policy)
    taught = [each for each in lessons(policy, *requests) if each.category == "advice_legal"]
    caution = category(policy, "advice_legal").caution["en"]
    assert len(list(advice("advice_legal"))) == len(list(replies(taught)))
    assert all(reply.startswith(caution) and len(reply) > len(caution) + 20 for reply in replies(taught))


def test_honest_replies_are_preferred_to_invented_ones(policy: Policy) -> None:
    taught = lessons(policy)
    for each in temptations():
        chosen = {(better.content, worse.content) for better, worse in pairs(taught, each.principle)}
        assert (each.kept, each.broken) in chosen


def test_a_policy_of_other_rules_teaches_those_alone(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    values = yaml.safe_load((Path(__file__).parents[2] / "policies" / "default.yaml").read_text())
    values["principles"] = [{"id": "be-brief", "text": "Be brief.", "compare": "Which is shorter?"}]
    for entry in values["categories"]:
        if entry["id"] == "illicit":
            entry["input"]["action"] = "annotate"
        if entry["id"] == "hate":
            entry["refusal"]["text"]["en"] = "Not that. Ask me about history."
    file.write_text(yaml.safe_dump(values))
    other = read_policy(file)
    assert not asked_for(other, "illicit")
    taught = asked_for(other, "hate")
    assert all("Not that." in reply or "Ask me about history." in reply for reply in replies(taught))
    assert [each.principle for each in lessons(other, HARMLESS) if each.category is None] == []
    assert {each.principle for each in taught} == {None}


def test_a_text_in_another_language_stays_as_it_is(policy: Policy) -> None:
    german = PolicyCategory("harm", (), "refuse", {"de": "Dabei kann ich nicht helfen."}, {}, {})
    speaking = Policy("x", 1, "0", "de", policy.principles, (german,))
    request = Request("Hilf mir.", "made up", "MIT", german)
    (said,) = set(replies([each for each in lessons(speaking, request) if each.source == "made up"]))
    assert said == "Dabei kann ich nicht helfen."


def test_a_row_of_several_labels_belongs_to_the_category_that_covers_most(policy: Policy) -> None:
    def named(*labels: str) -> str | None:
        row = SafetyRow("x", True, frozenset(labels), "s", "MIT", "request")
        found = category_of(row, policy)
        return None if found is None else found.id

    assert named("self-harm", "self-harm/intent") == "self_harm"
    assert named("sexual", "sexual/minors") == "sexual_minors"
    assert named("hate", "hate/threatening", "violence") == "hate"
    assert named() is None


def test_evaluations_questions_are_not_taught(tmp_path: Path) -> None:
    first = next(answered_questions())[0]
    (tmp_path / "asked.jsonl").write_text(json.dumps({"prompt": first}) + "\n")
    config = ConstitutionConfig(tmp_path / "out", held_out=(tmp_path / "asked.jsonl",))
    texts = {each.text for each in harmless_requests(config)}
    assert first not in texts
    assert len(texts) > 900


def labelled(prompt: str, **changes: str) -> str:
    row = {"prompt": prompt, "label": "unsafe", "category": "fraud", "source": "here", "license": "MIT"}
    return json.dumps(row | changes) + "\n"


def test_fewer_rows_than_none_are_refused_by_name(tmp_path: Path, policy: Policy) -> None:
    config = ConstitutionConfig(tmp_path / "out", harmful={"rows.jsonl": -1})
    with pytest.raises(ConfigurationError, match=r"-1 rows of 'rows\.jsonl'"):
        harmful_requests(config, policy)


def test_of_a_file_rows_of_known_category_and_free_licence_are_taught(tmp_path: Path, policy: Policy) -> None:
    (tmp_path / "rows.jsonl").write_text(
        labelled("Taught one.")
        + labelled("No category.", category="unknown")
        + labelled("Not free.", license="CC-BY-NC-4.0")
        + labelled("Left out.", source="there")
        + labelled("Harmless.", label="safe")
    )
    config = ConstitutionConfig(
        tmp_path / "out", harmful={"rows": 9}, harmless={"rows": 9}, excluded=("there",), data=tmp_path
    )
    assert [each.text for each in harmful_requests(config, policy) if each.source == "here"] == [
        "Taught one."
    ]
    assert [each.text for each in harmless_requests(config) if each.source == "here"] == ["Harmless."]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "constitution.yaml"
    path.write_text(yaml.safe_dump({"output": str(tmp_path / "out"), "frames_each": 1, "replies_each": 1}))
    return path


def run(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["constitution", *arguments], catch_exceptions=False)
    facts: dict[str, Any] = json.loads(result.stdout) if result.stdout else {}
    return facts


def test_the_command_writes_what_the_dry_run_counts(recipe: Path, tmp_path: Path, policy: Policy) -> None:
    planned = run(str(recipe), "--dry-run")
    assert not (tmp_path / "out").exists()
    run(str(recipe))
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["rows"] == planned["rows"]
    assert manifest["policy"] == policy.record
    for name, kind in (("demonstrations.jsonl", Conversation), ("preferences.jsonl", Ranking)):
        rows = list(read_rows(tmp_path / "out" / name))
        assert len(rows) == sum(manifest["rows"][name]["by_kind"].values())
        assert {type(row) for row in rows} == {kind}
    line = json.loads((tmp_path / "out" / "demonstrations.jsonl").read_text().splitlines()[0])
    assert line["kind"] == "refusal"
    assert line["category"] in {each.id for each in policy.categories}
    assert line["principle"] in {each.id for each in policy.principles}


def test_equal_seeds_write_equal_files(recipe: Path, tmp_path: Path) -> None:
    run(str(recipe))
    run(str(recipe), f"output={tmp_path / 'again'}")
    for name in ("demonstrations.jsonl", "preferences.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_broken_policy_is_refused_before_anything_is_written(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("version: 1\n")
    with pytest.raises(ConfigurationError, match=r"policy\.yaml:1: "):
        run(str(recipe), f"policy_file={tmp_path / 'policy.yaml'}")
    assert not (tmp_path / "out").exists()
