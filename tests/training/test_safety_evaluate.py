"""Measuring servers and detectors side by side: what counts as a refusal, what voids a run, what is never shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from support.json_server import json_server
from turnwise_training.cli import app
from turnwise_training.errors import DataError, RunError, TrainingError
from turnwise_training.safety.asking import MeasuredServer
from turnwise_training.safety.compare import compare, require_answers
from turnwise_training.safety.comparison_table import comparison_table
from turnwise_training.safety.evaluate import evaluate_files
from turnwise_training.safety.labels import LABELS, labels_of
from turnwise_training.safety.metrics import average_precision_interval
from turnwise_training.safety.outcomes import Outcome, of_moderation, of_reply
from turnwise_training.safety.rows import SafetyRow, read_labelled

ANSWERED, REFUSED = Outcome(), Outcome(refused=True, stage="input", layer="on")


def reply(content: str | None = "Gladly.", **choice: object) -> dict[str, Any]:
    return {
        "choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": "stop"} | choice]
    }


def moderation(score: float, *, flagged: bool) -> dict[str, Any]:
    return {"results": [{"flagged": flagged, "category_scores": {"hate": score, "sexual": 0.01}}]}


def row(source: str = "one", *labels: str, unsafe: bool = False, text: str = "paint") -> SafetyRow:
    known = frozenset(labels) if labels or not unsafe else None
    return SafetyRow(text, unsafe, known, source, "MIT", "request" if unsafe else "ordinary", f"{source}:1")


@dataclass
class FakeServer:
    """Answers from lists."""

    outcomes: Sequence[Outcome]
    scored: Sequence[Outcome] = ()
    url: str = "http://127.0.0.1:1/v1"
    asked: list[str] = field(default_factory=list)

    def replies(self, texts: Sequence[str]) -> list[Outcome]:
        self.asked += texts
        return list(self.outcomes)

    def moderations(self, texts: Sequence[str]) -> list[Outcome]:
        return list(self.scored)


def write_rows(folder: Path, harmless: int = 2, harmful: int = 2) -> Path:
    rows = [("safe", "none", f"paint wall {n}") for n in range(harmless)]
    rows += [("unsafe", "self_harm", f"zorb wall {n}") for n in range(harmful)]
    file = folder / "rows.jsonl"
    names = ("label", "category", "prompt")
    lines = [
        json.dumps(dict(zip(names, each, strict=True)) | {"source": "s", "license": "MIT"}) for each in rows
    ]
    file.write_text("\n".join(lines))
    return file


@pytest.mark.parametrize("prompt", [None, 5, ["paint"], "half a \ud800 pair"])
def test_a_prompt_that_no_server_could_be_asked_is_refused_with_its_line(
    prompt: object, tmp_path: Path
) -> None:
    file = tmp_path / "rows.jsonl"
    row = {"prompt": prompt, "label": "safe", "category": "none", "source": "s", "license": "MIT"}
    file.write_text(json.dumps(row))
    with pytest.raises(DataError, match=r"rows\.jsonl line 1: the prompt must be a text"):
        list(read_labelled(file))


@pytest.mark.parametrize("label", LABELS)
def test_a_row_may_bear_the_name_that_the_figures_have(label: str) -> None:
    assert label in (labels_of(label) or ())


@pytest.mark.parametrize("category", ["", None, "none"])
def test_a_harmless_text_without_a_category_is_an_ordinary_one(category: str | None, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(
        json.dumps({"prompt": "a", "label": "safe", "category": category, "source": "s", "license": "MIT"})
    )
    assert [each.kind for each in read_labelled(file)] == ["ordinary"]


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"x-refusal": "input/weapons"}, reply()),
        ({}, reply(x_refusal={"stage": "input", "category": "weapons"})),
        ({}, reply(finish_reason="content_filter")),
    ],
)
def test_a_signal_on_the_wire_is_a_refusal(headers: dict[str, str], body: object) -> None:
    assert of_reply(200, headers, body).refused


def test_a_refusal_tells_its_stage() -> None:
    assert of_reply(200, {"x-refusal": "input/weapons"}, reply()).stage == "input"
    assert of_reply(200, {}, reply(x_refusal={"stage": "output", "category": "hate"})).stage == "output"


@pytest.mark.parametrize("words", ["I can't help with that.", "Sorry, I cannot do that."])
def test_words_that_refuse_are_counted_apart_and_are_no_refusal(words: str) -> None:
    assert of_reply(200, {}, reply(words)) == Outcome(is_soft=True)
    in_field = {"choices": [{"message": {"content": None, "refusal": words}, "finish_reason": "stop"}]}
    assert of_reply(200, {}, in_field) == Outcome(is_soft=True)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (503, {"error": {"code": "moderation_unavailable"}}, "status 503, moderation_unavailable"),
        (400, {"error": {"code": "content_filter"}}, "status 400, content_filter"),
        (502, None, "status 502"),
        (200, {"choices": []}, "an answer of another form"),
    ],
)
def test_an_error_is_no_refusal(status: int, body: object, error: str) -> None:
    assert of_reply(status, {}, body) == Outcome(error=error)
    assert of_moderation(status, body) == Outcome(error=error)


@pytest.mark.parametrize("said", ["off", "skipped"])
def test_a_reply_says_whether_a_layer_checked_it(said: str) -> None:
    assert of_reply(200, {"x-moderation": said}, reply()).layer == said


def test_moderations_flag_and_score() -> None:
    assert of_moderation(200, moderation(0.7, flagged=True)) == Outcome(refused=True, score=0.7)
    assert of_moderation(200, moderation(0.1, flagged=False)) == Outcome(score=0.1)


def test_a_server_is_asked_each_text_once_and_failures_are_errors() -> None:
    def answer(path: str, body: Any) -> object:
        if path == "/v1/moderations":
            return moderation(0.9, flagged="zorb" in body["input"])
        return reply(x_refusal={"stage": "input"} if "zorb" in body["messages"][0]["content"] else None)

    with json_server(answer, statuses=[500]) as server:
        measured = MeasuredServer(f"{server.url}/v1", model="m")
        assert measured.replies(["zorb"]) == [Outcome(error="status 500")]
        assert [each.refused for each in measured.replies(["paint", "zorb", "walls"])] == [False, True, False]
        assert [each.refused for each in measured.moderations(["paint", "zorb"])] == [False, True]
    assert server.seen[1][1]["model"] == "m"
    assert MeasuredServer(server.url, model="m").replies(["paint"])[0].error == "ConnectError"


def test_without_a_model_the_first_listed_is_asked() -> None:
    with json_server(lambda path, _: {"data": [{"id": "first"}]} if path == "/models" else reply()) as server:
        assert MeasuredServer(server.url).replies(["paint"]) == [ANSWERED]
    assert server.seen[-1][1]["model"] == "first"


def test_more_than_two_percent_of_errors_void_a_run() -> None:
    failed = Outcome(error="status 503, moderation_unavailable")
    require_answers({"layer": [failed, *[ANSWERED] * 49]})
    with pytest.raises(RunError, match=r"void: of 49 texts the layer did not answer 1.*503"):
        require_answers({"layer": [failed, *[ANSWERED] * 48]})


def test_shares_leave_errors_out_and_stand_beside_each_other() -> None:
    rows = [row("a", "hate", unsafe=True)] * 4 + [row("b")] * 2
    layer = [REFUSED, REFUSED, ANSWERED, Outcome(error="status 500"), ANSWERED, REFUSED]
    figures = compare(rows, {"layer": layer, "detector": [Outcome(score=0.5)] * 6})
    harmless, harmful = figures["sources"]
    assert harmful["shares"]["layer"]["rate"] == pytest.approx(2 / 3, abs=1e-3)
    assert (harmful["n"], harmful["shares"]["layer"]["judged"]) == (4, 3)
    assert harmless["shares"]["layer"]["refused"] == 1
    assert figures["columns"]["layer"]["refused_harmless"] == ["b:1"]
    assert figures["columns"]["layer"]["error_reasons"] == {"status 500": 1}


def test_self_harm_and_minors_have_their_own_lines_even_without_rows() -> None:
    figures = compare([row("a", "hate", unsafe=True), row("b")], {"layer": [REFUSED, ANSWERED]})
    counts = {each["category"]: each["n"] for each in figures["categories"]}
    assert counts["hate"] == 1
    for grave in ("self-harm", "self-harm/intent", "self-harm/instructions", "sexual/minors"):
        assert counts[grave] == 0
    assert "| sexual/minors | 0 | none here |" in comparison_table(figures)


def test_harmful_rows_without_a_category_are_counted_as_such() -> None:
    figures = compare([row("a", unsafe=True), row("b")], {"layer": [REFUSED, ANSWERED]})
    assert next(each for each in figures["categories"] if each["category"] == "not written down")["n"] == 1


def test_the_tables_pair_recall_with_the_worst_false_refusals_and_ask_for_more_sources() -> None:
    rows = [row("a", unsafe=True)] * 4 + [row("b")] * 4 + [row("c")] * 4
    outcomes = [REFUSED] * 4 + [ANSWERED] * 4 + [REFUSED, Outcome(is_soft=True), ANSWERED, ANSWERED]
    scored = [Outcome(refused=each.refused, score=float(each.refused)) for each in outcomes]
    table = comparison_table(compare(rows, {"layer": outcomes, "detector": scored}))
    assert "| source | what | n | layer | detector | layer, in words only |" in table
    assert "| c | harmless, ordinary | 4 | 25.0% [4.6%, 69.9%] | 25.0% [4.6%, 69.9%] | 1 |" in table
    assert (
        "The layer refuses 100.0% [51.0%, 100.0%] of harmful requests; 25.0% [4.6%, 69.9%] of harmless ones in c"
        in table
    )
    assert "at a base rate of 0.333" in table
    assert "harmful texts 4 by input and 0 by output, harmless ones 1 by input and 0 by output." in table
    assert "hold 2 harmless sources" in table


def test_average_precision_has_an_interval_around_it() -> None:
    import numpy as np

    unsafe = np.arange(40) % 2 == 0
    low, high = average_precision_interval(np.where(unsafe, 0.9, 0.1), unsafe)
    assert (low, high) == (1.0, 1.0)
    low, high = average_precision_interval(np.arange(40) / 40, unsafe)
    assert 0 < low < 0.5 < high < 1


def test_server_model_and_detector_are_measured_on_the_same_rows(tmp_path: Path) -> None:
    guarded = FakeServer(
        [ANSWERED, ANSWERED, REFUSED, REFUSED],
        [Outcome(score=0.1)] * 2 + [Outcome(refused=True, score=0.9)] * 2,
    )
    alone = FakeServer([Outcome(layer="off"), *[Outcome(layer="off", is_soft=True)] * 3])
    output = tmp_path / "figures.json"
    table = evaluate_files([write_rows(tmp_path)], server=guarded, alone=alone, output=output)
    assert guarded.asked == alone.asked
    assert "| s | harmful, request | 2 | 100.0% [34.2%, 100.0%] | 0.0% [0.0%, 65.8%] | 100.0%" in table
    assert "paint" not in table + output.read_text()
    assert "zorb" not in table + output.read_text()


def test_at_most_so_many_rows_of_a_source_are_judged(tmp_path: Path) -> None:
    server = FakeServer([ANSWERED, REFUSED], [Outcome(score=0.1)] * 2)
    evaluate_files([write_rows(tmp_path, 30, 30)], server=server, each=1)
    assert len(server.asked) == 2


@pytest.mark.parametrize("option", ["detector", "output"])
def test_what_is_not_there_is_told_before_a_server_is_asked(option: str, tmp_path: Path) -> None:
    server = FakeServer([ANSWERED] * 4, [ANSWERED] * 4)
    missing: Any = {option: tmp_path / "none" / "figures.json"}
    with pytest.raises(TrainingError, match="none"):
        evaluate_files([write_rows(tmp_path)], server=server, **missing)
    assert server.asked == []


def test_a_layer_that_is_off_and_a_model_that_is_guarded_are_told(tmp_path: Path) -> None:
    rows, off = write_rows(tmp_path), [Outcome(layer="off")] * 4
    with pytest.raises(RunError, match=r"layer of .* is off; start it with a policy"):
        evaluate_files([rows], server=FakeServer(off))
    with pytest.raises(RunError, match="is on; start it with --unsafe-no-classifier"):
        evaluate_files([rows], server=FakeServer([ANSWERED] * 4), alone=FakeServer([REFUSED] * 4))


def test_the_command_asks_both_servers(tmp_path: Path) -> None:
    def answer(path: str, body: Any) -> object:
        if path == "/moderations":
            return moderation(0.9 if "zorb" in body["input"] else 0.1, flagged="zorb" in body["input"])
        is_refused = "zorb" in body["messages"][0]["content"] and body["model"] == "m"
        return reply(x_refusal={"stage": "input"} if is_refused else None)

    with json_server(answer) as guarded, json_server(lambda *_: reply()) as alone:
        arguments = ["--server", guarded.url, "--alone-server", alone.url, "--model", "m"]
        done = CliRunner().invoke(
            app, ["evaluate", "safety", str(write_rows(tmp_path)), *arguments], catch_exceptions=False
        )
    assert "| source | what | n | layer | model alone | detector |" in done.stdout
    assert "| self-harm | 2 | 100.0% [34.2%, 100.0%] | 0.0% [0.0%, 65.8%] |" in done.stdout
