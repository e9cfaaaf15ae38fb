"""`response_format` on the wire: what reaches the engine, what is refused and how, and a form that fails midway."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.fake_server import FakeServer, fake_server
from turnwise_server.chat.structured import json_object_grammar, json_schema_grammar
from turnwise_server.engine.base import GenerationRequest
from turnwise_server.engine.fake_engine import FakeGeneration
from turnwise_server.errors import GrammarError

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}


def named(schema: object, **fields: object) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema} | fields}


@pytest.mark.parametrize(
    ("form", "grammar"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, json_object_grammar()),
        (named(SCHEMA), json_schema_grammar(SCHEMA)),
        (named(SCHEMA, strict=True, description="A number."), json_schema_grammar(SCHEMA)),
        (named(SCHEMA, strict=None, description=None), json_schema_grammar(SCHEMA)),
    ],
)
async def test_every_choice_is_held_to_the_form(form: object, grammar: str | None) -> None:
    async with fake_server('{"a":1}') as server:
        reply = await server.chat(response_format=form, n=2)
        assert reply.status_code == 200
        assert [request.sampling.grammar for request in server.engine.requests] == [grammar] * 2


REFUSED: list[tuple[object, str, str]] = [
    ({}, "response_format.type", "missing_required_parameter"),
    ({"type": "yaml"}, "response_format.type", "invalid_value"),
    ({"type": 1}, "response_format.type", "invalid_type"),
    ({"type": "json_schema"}, "response_format.json_schema", "missing_required_parameter"),
    ({"type": "json_schema", "json_schema": []}, "response_format.json_schema", "invalid_type"),
    (
        {"type": "json_schema", "json_schema": {"schema": {}}},
        "response_format.json_schema.name",
        "missing_required_parameter",
    ),
    (
        {"type": "json_schema", "json_schema": {"name": "a"}},
        "response_format.json_schema.schema",
        "missing_required_parameter",
    ),
    (named({}, name=""), "response_format.json_schema.name", "invalid_value"),
    (named({}, name="a b"), "response_format.json_schema.name", "invalid_value"),
    (named({}, name="a" * 65), "response_format.json_schema.name", "invalid_value"),
    (named({}, strict="yes"), "response_format.json_schema.strict", "invalid_type"),
    (named({}, description=5), "response_format.json_schema.description", "invalid_type"),
    (named([]), "response_format.json_schema.schema", "invalid_type"),
    (named({"uniqueItems": True}), "response_format.json_schema.schema.uniqueItems", "unsupported_value"),
    (
        named({"properties": {"a": {"minLength": -1}}}),
        "response_format.json_schema.schema.properties.a.minLength",
        "invalid_value",
    ),
    (named({"$ref": "#"}), "response_format.json_schema.schema", "invalid_value"),
    (named({"enum": ["x" * 100] * 1000}), "response_format.json_schema.schema", "invalid_value"),
]


@pytest.mark.parametrize(("form", "param", "code"), REFUSED)
async def test_a_form_that_cannot_be_held_is_refused_before_any_work(
    form: object, param: str, code: str
) -> None:
    async with fake_server() as server:
        reply = await server.chat(response_format=form)
        assert reply.status_code == 400
        error = reply.json()["error"]
        assert (error["param"], error["code"]) == (param, code)
        assert error["type"] == "invalid_request_error"
        assert server.engine.requests == []


@pytest.mark.parametrize("form", [{"type": "json_object"}, named(SCHEMA)])
async def test_stop_strings_do_not_go_with_a_form(form: object) -> None:
    async with fake_server() as server:
        reply = await server.chat(response_format=form, stop="}")
        assert reply.status_code == 400
        assert (reply.json()["error"]["param"], reply.json()["error"]["code"]) == ("stop", "invalid_value")
        assert (await server.chat(response_format=form, stop=[])).status_code == 200
        assert (await server.chat(response_format={"type": "text"}, stop="}")).status_code == 200


def fail_midway(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every sequence fail after its first token, as one does whose grammar has become too complex."""
    submit = server.engine.submit

    def submit_and_fail(request: GenerationRequest) -> FakeGeneration:
        generation = submit(request)
        following = generation.__anext__
        calls = iter(range(100))

        async def next_or_fail() -> Any:
            if next(calls):
                raise GrammarError("ParserTooComplex")
            return await following()

        monkeypatch.setattr(FakeGeneration, "__anext__", lambda _: next_or_fail())
        return generation

    monkeypatch.setattr(server.engine, "submit", submit_and_fail)


async def test_a_form_that_fails_midway_is_the_requests_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fake_server('{"a":1}') as server:
        fail_midway(server, monkeypatch)
        reply = await server.chat(response_format=named(SCHEMA))
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "invalid_value"
    assert "too complex" in reply.json()["error"]["message"]


async def test_a_form_that_fails_midway_breaks_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fake_server('{"a":1}') as server:
        fail_midway(server, monkeypatch)
        reply = await server.chat(response_format=named(SCHEMA), stream=True)
    frames = reply.text.strip().split("\n\n")
    assert json.loads(frames[-1].removeprefix("data: "))["error"]["code"] == "invalid_value"
    assert "[DONE]" not in reply.text


async def test_a_model_that_takes_no_grammars_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fake_server() as server:
        monkeypatch.setattr(server.services.models.default.chat, "_takes_grammars", False)
        reply = await server.chat(response_format={"type": "json_object"})
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "unsupported_value")
        assert (await server.chat()).status_code == 200
