"""What POST /v1/moderations says of texts: OpenAI's thirteen categories, by the policy's detectors and thresholds."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from support.fake_server import FakeServer
from support.guarded_server import WORDS, WordDetector, guarded_server
from turnwise_server.chat.refusal.policy_file import DEFAULT_POLICY
from turnwise_server.chat.refusal.policy_types import OPENAI_CATEGORIES


async def moderate(server: FakeServer, content: Any, **more: Any) -> Any:
    reply = await server.client.post("/v1/moderations", json={"input": content} | more)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def result(server: FakeServer, content: Any) -> Any:
    (only,) = (await moderate(server, content))["results"]
    return only


def flagged_names(one: Any) -> set[str]:
    return {name for name, is_flagged in one["categories"].items() if is_flagged}


async def test_a_flagged_text_has_its_category_and_every_other_one() -> None:
    async with guarded_server() as server:
        content = await moderate(server, "how to zorb")
    (only,) = content["results"]
    assert set(content) == {"id", "model", "results"}
    assert content["id"].startswith("modr-")
    assert content["model"] == "turnwise-safety-default"
    assert list(only) == ["flagged", "categories", "category_scores", "category_applied_input_types"]
    for part in ("categories", "category_scores", "category_applied_input_types"):
        assert tuple(only[part]) == OPENAI_CATEGORIES
    assert only["flagged"] is True
    assert flagged_names(only) == {"illicit/violent"}
    assert only["category_scores"]["illicit/violent"] == 0.9


async def test_a_harmless_text_is_not_flagged() -> None:
    async with guarded_server() as server:
        only = await result(server, "how to bake")
    assert only["flagged"] is False
    assert flagged_names(only) == set()


async def test_a_category_that_no_detector_knows_scores_nothing_and_says_so() -> None:
    async with guarded_server() as server:
        only = await result(server, "how to zorb")
    known = {name for name, kinds in only["category_applied_input_types"].items() if kinds == ["text"]}
    assert known == set(WORDS)
    assert {only["category_scores"][name] for name in OPENAI_CATEGORIES if name not in known} == {0.0}


async def test_every_text_of_an_array_has_its_own_result_in_its_place() -> None:
    async with guarded_server() as server:
        content = await moderate(server, ["bake", "zorb", "bake", "a dwim"])
    assert [flagged_names(each) for each in content["results"]] == [
        set(),
        {"illicit/violent"},
        set(),
        {"harassment"},
    ]


async def test_parts_are_one_text_with_one_result() -> None:
    parts = [{"type": "text", "text": "bake"}, {"type": "text", "text": "a zorb"}]
    detector = WordDetector("words")
    async with guarded_server(detector=detector) as server:
        only = await result(server, parts)
    assert flagged_names(only) == {"illicit/violent"}
    assert detector.seen[0].text == "bake\na zorb"


@pytest.mark.parametrize(
    "text",
    [
        "z\u200bo\u200br\u200bb",
        "\uff5a\uff4f\uff52\uff42",
        "z o r b",
        base64.b64encode(b"please tell me how you would zorb that").decode(),
        "bake " * 2000 + "zorb" + " bake" * 2000,
    ],
    ids=["invisible characters", "fullwidth", "spaced", "base64", "padded"],
)
async def test_texts_are_judged_in_all_their_forms_and_windows(text: str) -> None:
    async with guarded_server() as server:
        assert flagged_names(await result(server, text)) == {"illicit/violent"}


async def test_the_thresholds_are_those_of_the_policy_for_requests(tmp_path: Path) -> None:
    strict = tmp_path / "policy.yaml"
    strict.write_text(
        DEFAULT_POLICY.read_text().replace(
            "openai: [harassment, harassment/threatening]\n    llama_guard: [S5]\n    input: {threshold: detector",
            "openai: [harassment, harassment/threatening]\n    llama_guard: [S5]\n    input: {threshold: 0.95",
        )
    )
    async with guarded_server(policy=strict) as server:
        only = await result(server, "a dwim")
    assert only["category_scores"]["harassment"] == 0.9
    assert only["flagged"] is False


async def test_a_category_of_the_policy_alone_flags_nothing() -> None:
    async with guarded_server() as server:
        only = await result(server, "Should I sue my landlord?")
    assert only["flagged"] is False


async def test_what_was_judged_stands_in_no_log(log_lines: list[dict[str, Any]]) -> None:
    async with guarded_server() as server:
        await moderate(server, ["tell me of the zorb", "bake"])
    assert "zorb" not in str(log_lines)
    assert "illicit" not in str(log_lines[-1])
    assert log_lines[-1]["inputs"] == 2


async def test_nothing_is_generated() -> None:
    async with guarded_server() as server:
        await moderate(server, "bake")
        assert not server.engine.requests
