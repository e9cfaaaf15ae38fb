"""A model's own judgement: critique, revision and comparison in both orders, recorded and gone on with."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from support.json_server import json_server
from support.tiny_checkpoints import write_tiny_checkpoint
from turnwise_training.cli import app
from turnwise_training.config import Feedback
from turnwise_training.constitution.assistants import (
    Letters,
    LocalAssistant,
    Messages,
    ServedAssistant,
    load_assistant,
)
from turnwise_training.constitution.feedback import Opinion, Task, ask, opinion_lessons, tasks, verdict
from turnwise_training.constitution.lessons import says
from turnwise_training.constitution.record import Record
from turnwise_training.constitution.requests import Request
from turnwise_training.data import Conversation, Ranking, read_rows
from turnwise_training.errors import ConfigurationError, RewardError
from turnwise_training.policy import PolicyPrinciple, read_policy

CRITICAL = PolicyPrinciple(
    "kind", "Be kind.", "Which reply is kinder?", "Is it unkind?", "Be kinder.", 1.0, ()
)
PLAIN = PolicyPrinciple("brief", "Be brief.", "Which reply is shorter?", None, None, 1.0, ())
REQUEST = Request("Say hello.", "made up", "MIT")
LIKELY, UNLIKELY = math.log(0.9), math.log(0.1)


class Scripted:
    """Replies by a function of the conversation, and prefers replies that hold a word, or always a place."""

    name = "scripted"

    def __init__(
        self, reply: Callable[[Messages], str], *, prefers: str = "", always: Letters | None = None
    ) -> None:
        self._reply = reply
        self._prefers = prefers
        self._always = always
        self.asked: list[Messages] = []

    def replies(self, conversations: Sequence[Messages], keys: Sequence[int]) -> list[str]:
        assert len(set(keys)) == len(keys)
        self.asked += conversations
        return [self._reply(conversation) for conversation in conversations]

    def letters(self, conversations: Sequence[Messages]) -> list[Letters]:
        self.asked += conversations
        return [self._always or self._letters(each[-1]["content"]) for each in conversations]

    def _letters(self, question: str) -> Letters:
        in_a = self._prefers in question.split("Reply A:")[1].split("Reply B:")[0]
        return (LIKELY, UNLIKELY) if in_a else (UNLIKELY, LIKELY)


def improving(conversation: Messages) -> str:
    """Reply rudely at first, then criticise, then revise."""
    return ["Go away.", "It is rude.", "Hello, friend!"][len(conversation) // 2]


def opinion_of(principle: PolicyPrinciple, model: Scripted) -> Opinion:
    (opinion,) = ask([Task(principle, REQUEST)], model, model, least=0.6, seed=1)
    return opinion


def test_a_better_revision_is_taught_and_preferred() -> None:
    model = Scripted(improving, prefers="friend")
    opinion = opinion_of(CRITICAL, model)
    assert (opinion.reply, opinion.other, opinion.outcome) == ("Go away.", "Hello, friend!", "other")
    shown, compared = opinion_lessons(Task(CRITICAL, REQUEST), opinion, "judge-1")
    assert isinstance(shown.row, Conversation)
    assert (shown.row.messages[-1]["content"], shown.kind, shown.principle) == (
        "Hello, friend!",
        "revision",
        "kind",
    )
    assert isinstance(compared.row, Ranking)
    assert [each.content for each in compared.row.completions] == ["Hello, friend!", "Go away."]
    assert compared.row.labeler == "judge-1"


def test_every_question_and_choice_is_recorded() -> None:
    opinion = opinion_of(CRITICAL, Scripted(improving, prefers="friend"))
    questions = [exchange["messages"][-1]["content"] for exchange in opinion.exchanges]  # type: ignore[index]
    assert questions[:3] == ["Say hello.", "Is it unkind?", "Be kinder. Write the new reply only."]
    assert all("Which reply is kinder? Answer with one letter" in question for question in questions[3:])
    answers = [exchange["answer"] for exchange in opinion.exchanges]
    assert answers[:3] == ["Go away.", "It is rude.", "Hello, friend!"]
    assert answers[3:] == [{"A": UNLIKELY, "B": LIKELY}, {"A": LIKELY, "B": UNLIKELY}]


def test_a_worse_revision_is_not_taught() -> None:
    opinion = opinion_of(CRITICAL, Scripted(improving, prefers="Go away"))
    (compared,) = opinion_lessons(Task(CRITICAL, REQUEST), opinion, "judge-1")
    assert isinstance(compared.row, Ranking)
    assert compared.row.completions[0].content == "Go away."


def test_a_principle_without_a_critique_compares_two_replies() -> None:
    said = iter(["Hello there, how are you?", "Hi."])
    model = Scripted(lambda conversation: next(said), prefers="Hi.")
    opinion = opinion_of(PLAIN, model)
    assert [len(conversation) for conversation in model.asked] == [1, 1, 1, 1]
    assert [each.kind for each in opinion_lessons(Task(PLAIN, REQUEST), opinion, "j")] == ["comparison"]


@pytest.mark.parametrize(
    ("always", "outcome"),
    [
        ((LIKELY, UNLIKELY), "disagreement"),
        ((LIKELY, LIKELY), "tie"),
        ((-math.inf, -math.inf), "unclear"),
    ],
)
def test_a_judge_that_cannot_decide_teaches_nothing(always: Letters, outcome: str) -> None:
    opinion = opinion_of(CRITICAL, Scripted(improving, always=always))
    assert opinion.outcome == outcome
    assert opinion_lessons(Task(CRITICAL, REQUEST), opinion, "j") == []
    json.dumps(opinion.exchanges, allow_nan=False)


def test_equal_replies_are_not_compared() -> None:
    opinion = opinion_of(CRITICAL, Scripted(lambda conversation: "Hello."))
    assert (opinion.outcome, opinion.probability) == ("equal", None)


@pytest.mark.parametrize(
    ("forward", "backward", "expected"),
    [
        ((LIKELY, UNLIKELY), (UNLIKELY, LIKELY), (0.9, "reply")),
        ((UNLIKELY, LIKELY), (LIKELY, UNLIKELY), (0.1, "other")),
        ((0.0, -math.inf), (-math.inf, 0.0), (1.0, "reply")),
        ((math.log(0.55), math.log(0.45)), (math.log(0.45), math.log(0.55)), (0.55, "tie")),
        ((LIKELY, UNLIKELY), (LIKELY, UNLIKELY), (0.5, "disagreement")),
        ((-5.0, -7.0), (-9.0, -7.0), (1 / (1 + math.exp(-2)), "reply")),
    ],
)
def test_the_letters_of_both_orders_make_one_verdict(
    forward: Letters, backward: Letters, expected: tuple[float, str]
) -> None:
    probability, outcome = verdict(forward, backward, least=0.6)
    assert probability == pytest.approx(expected[0])
    assert outcome == expected[1]


def test_a_principle_is_tried_on_its_categories_and_one_without_on_harmless_requests() -> None:
    policy = read_policy()
    crisis = next(each for each in policy.categories if each.id == "self_harm")
    harmful = [Request(f"Remark {n}.", "made up", "MIT", crisis) for n in range(5)]
    harmless = [Request(f"Question {n}?", "made up", "MIT") for n in range(5)]
    chosen = tasks(policy, [*harmful, *harmless, Request("x" * 5000, "made up", "MIT")], most=3, seed=1)
    assert all(task.request in harmful for task in chosen["care-in-crisis"])
    assert all(task.request in harmless for task in chosen["do-not-over-refuse"])
    assert [len(chosen[name]) for name in ("care-in-crisis", "honesty", "protect-children")] == [3, 3, 0]


def test_a_record_cut_by_a_kill_keeps_its_whole_lines(tmp_path: Path) -> None:
    path, task = tmp_path / "feedback.jsonl", Task(PLAIN, REQUEST)
    opinion = Opinion("a", "b", False, 0.7, "reply", [])
    Record(path).add({"one": (task, opinion)})
    with path.open("a") as file:
        file.write('{"key": "two", "opin')
    again = Record(path)
    assert again["one"] == opinion
    assert "two" not in again
    again.add({"two": (task, opinion)})
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["one", "two"]


def serve(path: str, body: dict[str, Any]) -> object:
    """Answer as an OpenAI-compatible server that always prefers the politer reply."""
    if path == "/v1/models":
        return {"data": [{"id": "served-1"}]}
    said = body["messages"][-1]["content"]
    if "top_logprobs" not in body:
        reply = improving(tuple(body["messages"]))
        return {"choices": [{"message": {"content": f" {reply}\n"}}]}
    first, second = ("A", "B") if "friend" in said.split("Reply B:")[0] else ("B", "A")
    likely = [(first, -0.2), (f" {first}", -3.0), (second, -2.0), ("The", -4.0)]
    top = [{"token": token, "logprob": logprob} for token, logprob in likely]
    return {"choices": [{"message": {"content": first}, "logprobs": {"content": [{"top_logprobs": top}]}}]}


def test_a_server_is_asked_as_openais_clients_ask() -> None:
    with json_server(serve) as server:
        settings = Feedback(f"{server.url}/v1", max_new_tokens=9, temperature=0.5)
        model = load_assistant(settings.assistant, settings)
        assert isinstance(model, ServedAssistant)
        assert model.name == "served-1"
        assert model.replies([says("Hello.")], [2**40 + 3]) == ["Go away."]
        ((a, b),) = model.letters([says("Reply A:\n\nHello, friend!\n\nReply B:\n\nGo away.")])
    assert a == pytest.approx(math.log(math.exp(-0.2) + math.exp(-3.0)))
    assert b == pytest.approx(-2.0)
    bodies = [body for path, body in server.seen if path.endswith("completions")]
    assert bodies[0] == {
        "model": "served-1",
        "messages": [{"role": "user", "content": "Hello."}],
        "temperature": 0.5,
        "max_tokens": 9,
        "seed": 3,
    }
    assert bodies[1]["logprobs"] is True


def test_a_server_without_logprobs_is_an_error() -> None:
    def plain(path: str, body: object) -> object:
        return {"data": [{"id": "x"}], "choices": [{"message": {"content": "A"}, "logprobs": None}]}

    with json_server(plain) as server, pytest.raises(RewardError, match="gave no logprobs"):
        load_assistant(server.url, Feedback(server.url)).letters([says("A or B?")])


def test_a_server_that_refuses_to_compare_leaves_the_pair_undecided() -> None:
    def refusing(path: str, body: object) -> object:
        choice = {"message": {"content": "I can't help."}, "logprobs": {"content": [], "refusal": None}}
        return {"data": [{"id": "x"}], "choices": [choice]}

    with json_server(refusing) as server:
        (letters,) = load_assistant(server.url, Feedback(server.url)).letters([says("A or B?")])
    assert verdict(letters, letters, least=0.6) == (None, "unclear")


@pytest.fixture
def small_policy(tmp_path: Path) -> Path:
    """The policy that ships with one principle that has a critique and one that has none."""
    values = yaml.safe_load((Path(__file__).parents[2] / "policies" / "default.yaml").read_text())
    names = {"care-in-crisis", "honesty"}
    values["principles"] = [each for each in values["principles"] if each["id"] in names]
    del values["principles"][1]["critique"], values["principles"][1]["revision"]
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def write_recipe(folder: Path, policy: Path, assistant: str, **settings: object) -> Path:
    feedback = {"assistant": assistant, "requests": 3, "max_new_tokens": 12, "batch": 2, **settings}
    recipe = {
        "output": str(folder / "out"),
        "policy_file": str(policy),
        "feedback": feedback,
        "frames_each": 1,
    }
    path = folder / "constitution.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def run(recipe: Path, *options: str) -> str:
    result = CliRunner().invoke(app, ["constitution", str(recipe), *options], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_opinions_of_a_server_become_rows_with_their_principle(tmp_path: Path, small_policy: Path) -> None:
    with json_server(serve) as server:
        run(write_recipe(tmp_path, small_policy, f"{server.url}/v1"))
    out = tmp_path / "out"
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["feedback"] == {
        "assistant": "served-1",
        "judge": "served-1",
        "outcomes": {"care-in-crisis": {"other": 3}, "honesty": {"equal": 3}},
    }
    assert manifest["rows"]["demonstrations.jsonl"]["by_kind"]["revision"] == 3
    assert manifest["rows"]["preferences.jsonl"]["by_kind"]["comparison"] == 3
    lines = [json.loads(line) for line in (out / "preferences.jsonl").read_text().splitlines()]
    compared = [line for line in lines if line["kind"] == "comparison"]
    assert {(line["principle"], line["category"], line["labeler"]) for line in compared} == {
        ("care-in-crisis", "self_harm", "served-1")
    }
    assert len(list(read_rows(out / "preferences.jsonl"))) == len(lines)


def test_a_run_that_was_cut_goes_on_without_asking_twice(tmp_path: Path, small_policy: Path) -> None:
    fails_from = 9  # the model's name, five questions on the first request, and two of the second

    def breaking(path: str, body: dict[str, Any]) -> object:
        return serve(path, body) if len(server.seen) < fails_from else {}

    with json_server(breaking) as server:
        recipe = write_recipe(tmp_path, small_policy, f"{server.url}/v1", batch=1)
        with pytest.raises(RewardError):
            run(recipe)
        assert not (tmp_path / "out" / "manifest.json").exists()
        done = (tmp_path / "out" / "feedback.jsonl").read_text()
        assert done.count("\n") == 1
        fails_from = 10**6
        run(recipe)
        questions = [json.dumps(body) for path, body in server.seen if path.endswith("completions")]
    record = (tmp_path / "out" / "feedback.jsonl").read_text()
    assert record.startswith(done)
    assert record.count("\n") == 6
    first = json.loads(done)["opinion"]["exchanges"][0]["messages"][0]["content"]
    assert sum(first in question and "Reply A" not in question for question in questions) == 3


def test_a_dry_run_counts_what_a_model_would_be_asked(tmp_path: Path, small_policy: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "model")
    facts = json.loads(run(write_recipe(tmp_path, small_policy, str(folder)), "--dry-run"))
    assert facts["feedback"] == {"care-in-crisis": 3, "honesty": 3}
    absent = json.loads(run(write_recipe(tmp_path, small_policy, "no/model"), "--dry-run"))
    assert absent["missing_inputs"] == ["no/model"]


def test_a_checkpoint_judges_itself_the_same_way_each_time(tmp_path: Path, small_policy: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "model", context_length=2048)
    recipe = write_recipe(tmp_path, small_policy, str(folder), least_preference=0.5)
    run(recipe)
    first = (tmp_path / "out" / "feedback.jsonl").read_bytes()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["feedback"]["assistant"].startswith("model ")
    assert sum(sum(each.values()) for each in manifest["feedback"]["outcomes"].values()) == 6
    run(recipe, f"output={tmp_path / 'again'}")
    assert (tmp_path / "again" / "feedback.jsonl").read_bytes() == first


def test_letters_are_the_models_own_probabilities(tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "model")
    model = LocalAssistant(folder, Feedback(str(folder), max_new_tokens=1))
    alone = [model.letters([says(text)])[0] for text in ("Short?", "A much longer question, A or B?")]
    together = model.letters([says("Short?"), says("A much longer question, A or B?")])
    assert together == [pytest.approx(each, abs=1e-4) for each in alone]
    assert all(0 < math.exp(a) + math.exp(b) < 1 for a, b in alone)


def test_a_question_over_the_context_is_refused_with_the_remedy(tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "model", context_length=64)
    model = LocalAssistant(folder, Feedback(str(folder)))
    with pytest.raises(ConfigurationError, match=r"context of 64; lower feedback\.max_new_tokens"):
        model.replies([says("Hello.")], [1])
