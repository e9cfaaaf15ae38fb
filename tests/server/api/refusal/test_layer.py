"""The refusal layer through HTTP: who is answered, who is not, and what happens on a bad day."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs

from support.asgi_connection import until
from support.fake_server import fake_server
from support.guarded_server import WordDetector, guarded_server
from support.policies import policy_file
from turnwise_server.api.refusal.guarding import override_of
from turnwise_server.auth import KeyRing, hash_key
from turnwise_server.chat.refusal.declined import WITHHELD
from turnwise_server.chat.refusal.policy_stages import Override
from turnwise_server.moderation.audit.log import AuditLog
from turnwise_server.moderation.audit.verify import verify
from turnwise_server.moderation.detector import DetectorError, Sample, Scores

KEY = "tw-layer-0123456789abcdef"
REASON = {"x-safety-reason": "a study of refusals"}
BEARER = {"authorization": f"Bearer {KEY}"}


def user(*texts: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text} for text in texts]}


def words(reply: httpx2.Response) -> str:
    return str(reply.json()["choices"][0]["message"]["content"])


async def test_a_refused_question_is_answered_by_the_policy_and_not_by_the_model() -> None:
    async with guarded_server("I am the model.") as server:
        reply = await server.chat(**user("Tell me about a zorb."))
    choice = reply.json()["choices"][0]
    assert reply.status_code == 200
    assert reply.headers["x-refusal"] == "input/weapons"
    assert choice["x_refusal"] == {"stage": "input", "category": "weapons"}
    assert choice["finish_reason"] == "stop"
    assert "weapons" in choice["message"]["content"]
    assert reply.json()["usage"]["completion_tokens"] == 0


async def test_despair_is_answered_with_help_in_the_reader_s_country() -> None:
    async with guarded_server() as server:
        client = server.client
        body = {"model": "test", **user("I feel glim.")}
        reply = await client.post("/v1/chat/completions", json=body, headers={"accept-language": "en-GB"})
    assert "Samaritans" in words(reply)
    assert reply.headers["x-refusal"] == "input/self_harm"


async def test_no_token_leaves_before_the_verdict_on_the_question() -> None:
    async with guarded_server("I am the model.", detector=WordDetector("words", delay_s=0.3)) as server:
        reply = await server.chat(**user("Tell me about a zorb."), stream=True)
    assert "I am" not in reply.text
    assert '"x_refusal"' in reply.text


async def test_after_a_refusal_the_conversation_goes_on_and_the_model_does_not_read_what_was_refused() -> (
    None
):
    async with guarded_server("Fine.") as server:
        asked = [{"role": "user", "content": "Tell me about a zorb."}]
        refusal = words(await server.chat(messages=asked))
        asked += [{"role": "assistant", "content": refusal}, {"role": "user", "content": "How are you?"}]
        reply = await server.chat(messages=asked)
        prompt = server.engine.requests[-1].prompt_ids
        read = server.services.models.default.chat.prompts.plain.decode(prompt)
    assert words(reply) == "Fine."
    assert "x-refusal" not in reply.headers
    assert "zorb" not in read
    assert WITHHELD in read
    assert refusal in read


async def test_a_reply_that_passed_is_not_judged_again_when_it_comes_back() -> None:
    detector = WordDetector("words")
    async with guarded_server("A fine reply.", detector=detector) as server:
        await server.chat(**user("Hello."))
        detector.seen.clear()
        history = [
            {"role": "user", "content": "Hello."},
            {"role": "assistant", "content": "A fine reply."},
            {"role": "user", "content": "And now?"},
        ]
        await server.chat(messages=history)
    judged = [sample.text for sample in detector.seen if sample.stage == "input"]
    assert judged == ["And now?", "Hello.\nAnd now?", "A fine reply.\nAnd now?"]


async def test_a_caution_goes_before_the_answer_and_comes_back_unjudged() -> None:
    async with guarded_server("Rest and drink.") as server:
        whole = await server.chat(**user("What do my symptoms mean?"))
        streamed = await server.chat(**user("What do my symptoms mean?"), stream=True)
    assert words(whole).startswith("I'm not a doctor")
    assert words(whole).endswith("\n\nRest and drink.")
    deltas = [
        json.loads(line[6:])["choices"][0]["delta"]
        for line in streamed.text.split("\n\n")
        if '"delta"' in line
    ]
    assert "".join(delta.get("content") or "" for delta in deltas) == words(whole)


async def test_a_caution_is_left_out_where_json_is_promised() -> None:
    async with guarded_server('{"a": 1}') as server:
        body = user("What do my symptoms mean? Say it in JSON.") | {
            "response_format": {"type": "json_object"}
        }
        reply = await server.chat(**body)
    assert json.loads(words(reply)) == {"a": 1}


@pytest.mark.parametrize("delay_s", [0.0, 30.0])
async def test_what_cannot_be_checked_is_an_error_and_no_refusal(tmp_path: Path, delay_s: float) -> None:
    slow = [
        {"id": "words", "kind": "hf_sequence_classification", "path": "builtin:safety", "deadline_ms": 50}
    ]
    detector = WordDetector("words", fails=not delay_s, delay_s=delay_s)
    policy = policy_file(tmp_path, {"detectors": slow})
    async with guarded_server("I am the model.", detector=detector, policy=policy) as server:
        reply = await server.chat(**user("Hello."))
        streamed = await server.chat(**user("Hello."), stream=True)
    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "moderation_unavailable"
    assert reply.headers["retry-after"]
    assert "I am" not in streamed.text
    assert '"code":"moderation_unavailable"' in streamed.text
    assert "[DONE]" not in streamed.text


async def test_what_may_pass_unchecked_passes_and_says_so(tmp_path: Path) -> None:
    every = [category.id for category in (await _policy()).categories]
    policy = policy_file(tmp_path, {}, {name: {"on_error": "open"} for name in every})
    async with guarded_server("Fine.", detector=WordDetector("words", fails=True), policy=policy) as server:
        reply = await server.chat(**user("Hello."))
    assert words(reply) == "Fine."
    assert reply.headers["x-moderation"] == "skipped"


async def _policy() -> Any:
    async with guarded_server() as server:
        return server.services.policy.current.policy


async def test_without_the_layer_every_reply_says_so() -> None:
    async with fake_server("Fine.") as server:
        reply = await server.chat(**user("Tell me about a zorb."))
        health = (await server.client.get("/health")).json()
    assert words(reply) == "Fine."
    assert reply.headers["x-moderation"] == "off"
    assert health == {"status": "degraded", "faults": ["no_classifier"]}


async def ask_with(
    scopes: str, headers: dict[str, str], text: str, policy: Path | None = None
) -> httpx2.Response:
    keys = KeyRing([hash_key(KEY, f"ada {scopes}")])
    async with guarded_server("Fine.", keys=keys, headers=BEARER | headers, policy=policy) as server:
        return await server.chat(**user(text))


async def test_a_key_with_the_scope_and_a_reason_is_answered_all_the_same(tmp_path: Path) -> None:
    rule = {"allow_scopes": ["safety:override"], "require_reason": True, "never": ["sexual_minors"]}
    policy = policy_file(tmp_path, {"override": rule})
    allowed = await ask_with("scope=safety:override", REASON, "Tell me about a zorb.", policy)
    assert words(allowed) == "Fine."
    for scopes, headers, text in (
        ("scope=safety:override", {}, "Tell me about a zorb."),
        ("scope=safety:trusted", REASON, "Tell me about a zorb."),
        ("scope=safety:override", REASON, "Tell me about a quop."),
    ):
        assert "x-refusal" in (await ask_with(scopes, headers, text, policy)).headers, (scopes, headers, text)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_reason_is_recorded_as_it_was_written(encoding: str) -> None:
    key = hash_key(KEY, "ada scope=safety:override")
    sent = "  für eine Prüfung ".encode(encoding).decode("latin-1")
    use = override_of(Override(allow_scopes=("safety:override",)), key, sent)
    assert use is not None
    assert use.reason == "für eine Prüfung"


async def test_the_policy_that_ships_lets_nobody_override_it() -> None:
    assert "x-refusal" in (await ask_with("scope=safety:override", REASON, "Tell me about a zorb.")).headers


@pytest.mark.parametrize(("scopes", "is_refused"), [("", True), ("scope=safety:trusted", False)])
async def test_system_messages_of_a_trusted_key_are_not_judged(scopes: str, is_refused: bool) -> None:
    keys = KeyRing([hash_key(KEY, f"ada {scopes}")])
    messages = [{"role": "system", "content": "Never name a zorb."}, {"role": "user", "content": "Hello."}]
    async with guarded_server("Fine.", keys=keys, headers=BEARER) as server:
        reply = await server.chat(messages=messages)
    assert ("x-refusal" in reply.headers) is is_refused


@pytest.mark.parametrize(
    ("word", "content", "refusal"), [("content", True, False), ("field", False, True), ("both", True, True)]
)
async def test_a_key_has_its_own_style_of_refusals(word: str, content: bool, refusal: bool) -> None:
    message = (await ask_with(f"refusal={word}", {}, "Tell me about a zorb.")).json()["choices"][0]["message"]
    assert (message["content"] is not None, message["refusal"] is not None) == (content, refusal)


async def test_a_category_that_is_not_to_be_revealed_is_not(tmp_path: Path) -> None:
    policy = policy_file(tmp_path, {"refusal": {"style": "content", "reveal_category": False}})
    async with guarded_server(policy=policy) as server:
        reply = await server.chat(**user("Tell me about a zorb."))
    assert reply.headers["x-refusal"] == "input/policy"


async def test_a_cut_reply_is_made_anew_once_where_the_policy_says_so(tmp_path: Path) -> None:
    rule = {"weapons": {"output": {"threshold": "detector", "action": "regenerate"}}}
    policy = policy_file(tmp_path, {}, rule)
    async with guarded_server("A zorb is built so.", "I would rather not.", policy=policy) as server:
        assert words(await server.chat(**user("Hello."))) == "I would rather not."
    async with guarded_server("A zorb is built so.", policy=policy) as server:
        assert (await server.chat(**user("Hello."))).headers["x-refusal"] == "output/weapons"


async def test_a_leak_that_is_only_noted_does_not_keep_the_rest_from_being_judged(tmp_path: Path) -> None:
    secret = (
        "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        * 2
    )
    policy = policy_file(tmp_path, {"leak": {"action": "annotate"}})
    messages = [{"role": "system", "content": secret}, {"role": "user", "content": "Hello."}]
    async with guarded_server(secret, "unread", f"{secret} A zorb.", policy=policy) as server:
        assert words(await server.chat(messages=messages)) == secret
        await server.chat(**user("Tell me about a zorb."))
        cut = await server.chat(messages=messages)
    assert cut.headers["x-refusal"] == "output/weapons"


async def test_a_policy_that_changes_is_in_force_for_the_next_request(tmp_path: Path) -> None:
    policy = policy_file(tmp_path, {})
    async with guarded_server("Fine.", policy=policy) as server:
        holder = server.services.policy
        assert "x-refusal" in (await server.chat(**user("Tell me about a zorb."))).headers
        policy_file(tmp_path, {}, {"weapons": {"input": {"threshold": 0.95, "action": "refuse"}}})
        holder.refresh(must_read=True)
        assert words(await server.chat(**user("Tell me about a zorb."))) == "Fine."
        policy.write_text("version: 7")
        holder.refresh(must_read=True)
        assert words(await server.chat(**user("Hello."))) == "Fine."
        health = await server.client.get("/health")
        assert health.status_code == 200
        assert health.json() == {"status": "degraded", "faults": ["policy_not_loaded"]}


def records(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "audit.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["kind"] == "decision"]


async def test_every_decision_is_recorded_without_a_word_of_content(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", (await _policy()).audit)
    long = "This is harmless. " * 12
    async with guarded_server(long, "unread", long + "And a zorb." + long, audit=log) as server:
        fine = await server.chat(**user("Hello."), user="ada@example.org")
        await server.chat(**user("Tell me about a zorb."))
        cut = await server.chat(**user("Goodbye."), stream=True)
    assert '"retract":true' in cut.text
    first, second, refused, third, blocked = records(tmp_path)
    assert [each["stage"] for each in (first, second, refused, third, blocked)] == [
        "input", "output", "input", "input", "output",
    ]  # fmt: skip
    assert (first["action"], first["reply_id"], first["policy_sha256"]) == (
        "allow",
        fine.json()["id"],
        server.services.policy.current.sha256,
    )
    assert (refused["action"], refused["category"], refused["wire"]) == ("refuse", "weapons", "content")
    assert (blocked["action"], blocked["partial"]) == ("block", True)
    assert blocked["sent_chars"] > 0 < blocked["held_chars"]
    assert {each["id"] for each in refused["detectors"]} == {"starter", "advice"}
    content = (tmp_path / "audit.jsonl").read_text()
    assert "zorb" not in content
    assert "harmless" not in content
    assert "ada@example.org" not in content
    assert verify(tmp_path / "audit.jsonl").fault is None


class FailingAt(WordDetector):
    """Fails for the texts of one stage that hold a word."""

    stage = "input"

    async def score(self, samples: Sequence[Sample]) -> Sequence[Scores]:
        if any(each.stage == self.stage and "wisp" in each.text for each in samples):
            raise DetectorError("it does not work")
        return await super().score(samples)


async def test_a_request_that_could_not_be_checked_is_not_recorded_as_allowed(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", (await _policy()).audit)
    async with guarded_server("Fine.", detector=FailingAt("words"), audit=log) as server:
        assert (await server.chat(**user("A wisp."))).status_code == 503
        metrics = (await server.client.get("/metrics")).text
    (record,) = records(tmp_path)
    assert (record["stage"], record["action"], record["unchecked"]) == ("input", "unavailable", True)
    assert 'decisions_total{action="unavailable",category="none",stage="input"} 1.0' in metrics
    assert 'action="allow"' not in metrics


@pytest.mark.parametrize("before", ["", "This is harmless. " * 12])
async def test_a_reply_that_could_not_be_checked_is_not_recorded_as_allowed(
    before: str, tmp_path: Path
) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", (await _policy()).audit)
    detector = FailingAt("words")
    detector.stage = "output"
    async with guarded_server(f"{before}A wisp.", detector=detector, audit=log) as server:
        cut = await server.chat(**user("Hello."), stream=True)
    assert '"code":"moderation_unavailable"' in cut.text
    asked, replied = records(tmp_path)
    assert (asked["action"], asked["unchecked"]) == ("allow", False)
    assert (replied["action"], replied["unchecked"]) == ("unavailable", True)
    assert (replied["sent_chars"] > 0) is bool(before)


async def test_a_fault_of_ours_in_a_check_is_an_error_that_the_log_explains() -> None:
    class Broken(WordDetector):
        async def score(self, samples: Sequence[Sample]) -> Sequence[Scores]:
            raise ZeroDivisionError(samples[0].text)

    async with guarded_server("Fine.", detector=Broken("words")) as server:
        with capture_logs() as logs:
            assert (await server.chat(**user("A wisp."))).status_code == 503
    assert {each["error_type"] for each in logs if each["event"] == "check_failed"} == {"ZeroDivisionError"}
    assert "wisp" not in json.dumps(logs)


async def test_a_client_that_leaves_while_text_is_held_leaves_a_record(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", (await _policy()).audit)
    async with guarded_server("harmless " * 50, audit=log, token_delay_s=0.01) as server:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.4):
                await server.chat(**user("Hello."))
        await until(lambda: server.engine.stats().running == 0)
    assert records(tmp_path)[0]["stage"] == "input"


async def test_where_decisions_cannot_be_recorded_nothing_is_answered(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit" / "audit.jsonl", (await _policy()).audit)
    async with guarded_server("Fine.", audit=log) as server:
        (tmp_path / "audit" / "audit.jsonl").unlink()
        (tmp_path / "audit").rename(tmp_path / "gone")
        (tmp_path / "audit").touch()
        await server.chat(**user("Hello."))
        await until(lambda: not log.is_writable)
        reply = await server.chat(**user("Hello."))
        health = (await server.client.get("/health")).json()
    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "moderation_unavailable"
    assert health["faults"] == ["audit_not_written"]
