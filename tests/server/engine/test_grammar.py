"""Sequences held to grammars: valid to the end, alone or beside others, and at no cost to these."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher
from tokenizers import Tokenizer

from support.core_driver import Driver, new_driver, random_prompt
from support.json_schemas import Schema, schemas
from support.tiny_checkpoints import write_tiny_checkpoint
from turnwise_server.chat.structured import json_object_grammar, json_schema_grammar
from turnwise_server.engine.base import FinishReason, GenerationRequest, SamplingParams
from turnwise_server.engine.grammar import MAX_KEPT_GRAMMARS, GrammarCompiler
from turnwise_server.engine.process_engine import ProcessEngine
from turnwise_server.engine.sampler import SamplingState, sample
from turnwise_server.errors import GrammarError, RequestError

STOP = frozenset({0, 2})
POINT: Schema = {
    "type": "object",
    "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 99}, "kind": {"enum": ["a", "b"]}},
    "required": ["x", "kind"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny chat checkpoint with a tokenizer."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def driver(checkpoint: Path) -> Driver:
    """An engine core that every test leaves idle."""
    return new_driver(checkpoint)


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Path) -> Tokenizer:
    """The checkpoint's tokenizer."""
    return Tokenizer.from_file(str(checkpoint / "tokenizer.json"))


def held(schema: Schema, seed: int = 0, **params: Any) -> SamplingParams:
    """Return parameters that hold a sequence to a schema."""
    defaults: dict[str, Any] = {"max_tokens": 150, "seed": seed, "stop_token_ids": STOP}
    return SamplingParams(**defaults | params, grammar=json_schema_grammar(schema))


def reply(driver: Driver, tokenizer: Tokenizer, key: int) -> tuple[str, FinishReason | None]:
    """Return the text of a finished sequence, and why it finished."""
    ids = [token for token in driver.tokens(key) if token not in STOP]
    return tokenizer.decode(ids, skip_special_tokens=False), driver.events[key][-1].finish_reason


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(forms=st.lists(schemas(), min_size=1, max_size=6), seed=st.integers(0, 2**32))
def test_what_stops_by_itself_is_valid_under_its_schema(
    forms: list[Schema], seed: int, driver: Driver, tokenizer: Tokenizer
) -> None:
    keys = [
        driver.submit(random_prompt(8, seed + at), held(schema, seed + at, temperature=0.5 + at))
        for at, schema in enumerate(forms)
    ]
    driver.finish()
    for key, schema in zip(keys, forms, strict=True):
        text, reason = reply(driver, tokenizer, key)
        assert key not in driver.errors
        if reason is FinishReason.STOP:
            jsonschema.validate(json.loads(text), schema, jsonschema.Draft202012Validator)
        else:
            assert len(driver.tokens(key)) == 150


def test_a_json_object_is_an_object_without_blanks(driver: Driver, tokenizer: Tokenizer) -> None:
    keys = [
        driver.submit(
            random_prompt(8, seed),
            SamplingParams(
                100, seed=seed, stop_token_ids=STOP, grammar=json_object_grammar(), logit_bias={95: 4.0}
            ),
        )
        for seed in range(8)
    ]
    driver.finish()
    replies = [reply(driver, tokenizer, key) for key in keys]
    assert any(reason is FinishReason.STOP for _, reason in replies)
    for text, reason in replies:
        assert text.startswith("{")
        assert reason is not FinishReason.STOP or isinstance(json.loads(text), dict)


def test_seeded_rows_are_the_same_alone_and_among_free_ones(driver: Driver) -> None:
    prompt, params = random_prompt(9, 1), held(POINT, seed=5)
    alone = driver.run(prompt, params)
    keys = [driver.submit(prompt, params)]
    keys += [driver.submit(random_prompt(9, at), replace(params, seed=at)) for at in range(3)]
    free = SamplingParams(30, seed=7)
    free_key = driver.submit(prompt, free)
    driver.finish()
    assert driver.tokens(keys[0]) == alone
    assert driver.tokens(free_key) == driver.run(prompt, free)


def test_greedy_replies_are_valid_too(driver: Driver, tokenizer: Tokenizer) -> None:
    key = driver.submit(random_prompt(9, 3), held(POINT, temperature=0.0))
    driver.finish()
    text, reason = reply(driver, tokenizer, key)
    assert reason is FinishReason.STOP
    jsonschema.validate(json.loads(text), POINT)


@pytest.mark.parametrize(
    "extreme",
    [
        {"logit_bias": dict.fromkeys(range(320), -100.0) | {2: 100.0, 50: 100.0}},
        {"repetition_penalty": 10.0, "presence_penalty": 2.0, "frequency_penalty": 2.0},
        {"top_p": 1e-6},
        {"top_k": 1},
        {"min_p": 1.0},
        {"temperature": 1e-30},
    ],
    ids=lambda extreme: next(iter(extreme)),
)
def test_no_parameter_leads_out_of_the_grammar(
    driver: Driver, tokenizer: Tokenizer, extreme: dict[str, Any]
) -> None:
    keys = [driver.submit(random_prompt(9, seed), held(POINT, seed, **extreme)) for seed in range(4)]
    driver.finish()
    for key in keys:
        text, reason = reply(driver, tokenizer, key)
        assert reason is FinishReason.STOP
        jsonschema.validate(json.loads(text), POINT)


def test_a_model_that_rules_out_all_that_is_allowed_still_follows_the_grammar(checkpoint: Path) -> None:
    compiler = GrammarCompiler.load(checkpoint, vocab_size=320, stop_token_ids=STOP)
    assert compiler is not None
    states = []
    for temperature in (0.0, 1.0):
        cursor = compiler.cursor('start: "a" | "b"', STOP)
        cursor.wait(30)
        cursor.look()
        params = SamplingParams(9, temperature=temperature, repetition_penalty=2.0)
        states.append(SamplingState(params, (1,), torch.device("cpu"), cursor))
    allowed = states[0].grammar.allowed  # type: ignore[union-attr]
    sick = torch.where(torch.from_numpy(allowed), -torch.inf, 1.0).expand(2, -1).clone()
    token_ids, _ = sample(sick, states)
    assert all(allowed[token_id] for token_id in token_ids)


def test_logprobs_are_the_models_own(driver: Driver) -> None:
    prompt = random_prompt(9, 4)
    constrained = driver.submit(prompt, held(POINT, top_logprobs=3))
    free = driver.submit(prompt, SamplingParams(1, seed=0, top_logprobs=3))
    driver.finish()
    first = driver.events[constrained][0]
    assert first.logprobs is not None
    assert driver.events[free][0].logprobs is not None
    assert first.logprobs.top == driver.events[free][0].logprobs.top  # type: ignore[union-attr]
    assert first.token_id not in dict(first.logprobs.top)
    assert first.logprobs.logprob < min(logprob for _, logprob in first.logprobs.top)


def test_the_limit_cuts_and_says_length(driver: Driver) -> None:
    key = driver.submit(random_prompt(9, 4), held(POINT, max_tokens=3))
    driver.finish()
    assert [event.finish_reason for event in driver.events[key]] == [None, None, FinishReason.LENGTH]


@pytest.mark.parametrize(
    "grammar",
    ["start: nothing_of_that_name", 'start: %json {"type": "nothing"}', 'start: "a" %json {"$ref": "#"}'],
)
def test_a_grammar_that_cannot_be_followed_fails_its_sequence_alone(driver: Driver, grammar: str) -> None:
    bad = driver.submit(random_prompt(9, 1), SamplingParams(9, stop_token_ids=STOP, grammar=grammar))
    good = driver.submit(random_prompt(9, 2), SamplingParams(9, seed=1))
    driver.finish()
    assert bad in driver.errors
    assert len(driver.tokens(good)) == 9
    assert not driver.core.has_work


def test_no_more_grammars_are_kept_than_may_be(checkpoint: Path) -> None:
    compiler = GrammarCompiler.load(checkpoint, vocab_size=320, stop_token_ids=STOP)
    assert compiler is not None
    for number in range(MAX_KEPT_GRAMMARS + 5):
        cursor = compiler.cursor(f'start: "{number}"', STOP)
        cursor.look()
        assert cursor.allowed.any()
    assert len(compiler._kept) == MAX_KEPT_GRAMMARS


def test_a_tokenizer_without_bytes_takes_no_grammars(checkpoint: Path, tmp_path: Path) -> None:
    assert GrammarCompiler.load(tmp_path, vocab_size=320, stop_token_ids=STOP) is None
    (tmp_path / "tokenizer.json").write_text("{}")
    assert GrammarCompiler.load(tmp_path, vocab_size=320, stop_token_ids=STOP) is None
    assert GrammarCompiler.load(checkpoint, vocab_size=320, stop_token_ids=frozenset()) is None


def test_the_vocabulary_may_be_padded(checkpoint: Path) -> None:
    compiler = GrammarCompiler.load(checkpoint, vocab_size=384, stop_token_ids=STOP)
    assert compiler is not None
    cursor = compiler.cursor(json_object_grammar(), STOP)
    cursor.look()
    assert cursor.allowed.shape == (384,)
    assert not cursor.allowed[320:].any()


def slow_compiler(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let grammars be compiled only once the event is set."""
    compiler, may_go_on = driver.core._grammars, threading.Event()
    assert compiler is not None
    compile_at_once = compiler._compile

    def compile_later(text: str) -> LLMatcher:
        assert may_go_on.wait(30)
        return compile_at_once(text)

    monkeypatch.setattr(compiler, "_compile", compile_later)
    return may_go_on


def test_nobody_waits_for_somebody_elses_grammar(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on = slow_compiler(driver, monkeypatch)
    slow = driver.submit(random_prompt(9, 1), held({"const": "slow"}))
    free = driver.submit(random_prompt(9, 2), SamplingParams(20, seed=1))
    driver.step(25)
    assert (len(driver.tokens(free)), driver.tokens(slow)) == (20, [])
    assert driver.core.has_work
    may_go_on.set()
    driver.finish()
    assert driver.events[slow][-1].finish_reason is FinishReason.STOP


def test_what_waits_for_its_grammar_can_be_cancelled(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on = slow_compiler(driver, monkeypatch)
    key = driver.submit(random_prompt(9, 1), held({"const": "cancelled"}))
    driver.step()
    driver.core.cancel(key)
    assert not driver.core.has_work
    may_go_on.set()


async def test_failing_grammars_leave_the_process_alone(checkpoint: Path) -> None:
    engine = ProcessEngine(checkpoint, device="cpu", dtype="float32", threads=1, kv_memory_mb=64)
    info = await engine.start()
    assert info.takes_grammars
    pid = engine.pid
    try:
        for number in range(5):
            bad = SamplingParams(9, stop_token_ids=STOP, grammar=f"start: nothing_{number}")
            with pytest.raises(GrammarError):
                [event async for event in engine.submit(GenerationRequest("r", (5, 6), bad))]
        good = engine.submit(GenerationRequest("r", (5, 6), held(POINT)))
        assert [event async for event in good][-1].finish_reason is FinishReason.STOP
        assert engine.pid == pid
        with pytest.raises(RequestError, match="grammar"):
            engine.submit(GenerationRequest("r", (5, 6), replace(held(POINT), stop_token_ids=frozenset())))
    finally:
        await engine.close()
