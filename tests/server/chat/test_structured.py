"""What the grammars of JSON and of tool calls match, byte for byte."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from turnwise_server.chat.structured import (
    CallWrapper,
    ToolSchema,
    json_object_grammar,
    json_schema_grammar,
    tool_call_grammar,
)
from turnwise_server.engine.grammar_text import _Bytes
from turnwise_server.errors import RequestError

BYTES = LLTokenizer(TokenizerWrapper(_Bytes()))
HERMES = CallWrapper("<tool_call>\n", "\n</tool_call>", "\n")
BARE_LIST = CallWrapper("", "", ", ", "[", "]", arguments_key="parameters")
CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = ToolSchema("get", CITY, "tools[0].function.parameters")
NOW = ToolSchema("get_now", {}, "tools[1].function.parameters")
BUCHAREST = '{"name": "get", "arguments": {"city": "București"}}'


def matches(grammar: str, text: str | list[int]) -> bool:
    """Say whether a grammar matches the whole of a text."""
    matcher = LLMatcher(BYTES, grammar, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    tokens = list(text.encode()) if isinstance(text, str) else text
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


@pytest.mark.parametrize("text", ["{}", '{"a": 1}', '{"a":[1, -2.5e3,null],"b":{"c":"\\n\\"é"}}'])
def test_every_object_is_a_json_object(text: str) -> None:
    assert matches(json_object_grammar(), text)


@pytest.mark.parametrize(
    "text", ["[]", "1", "", "{", '{"a" :1}', '{"a":  1}', ' {"a":1}', '{"a":1}\n', '{"a":01}']
)
def test_nothing_else_is_and_blanks_are_few(text: str) -> None:
    assert not matches(json_object_grammar(), text)


@pytest.mark.parametrize("text", ['{"a":"\\ud800"}', '{"a":"\\u0041"}', '{"a":"\x01"}', '{"a":"\x7f"}'])
def test_strings_have_no_half_characters_nor_control_characters(text: str) -> None:
    assert not matches(json_object_grammar(), text)


def test_a_name_cannot_be_disguised_by_an_escape() -> None:
    grammar = json_schema_grammar({"type": "object", "properties": {"a": {"type": "integer"}}})
    assert matches(grammar, '{"a":1,"b":"x"}')
    assert not matches(grammar, '{"\\u0061":"x"}')
    assert not matches(grammar, '{"b":1,"a":"x"}')


@settings(max_examples=60, deadline=None)
@given(
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**53), 2**53)
        | st.text(st.characters(min_codepoint=32, exclude_characters="\x7f", exclude_categories=["Cs"])),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
        ),
        max_leaves=6,
    )
)
def test_a_constant_is_matched_as_json_writes_it(value: Any) -> None:
    grammar = json_schema_grammar({"const": value})
    assert matches(grammar, json.dumps(value, ensure_ascii=False))
    assert matches(grammar, json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    assert not matches(grammar, json.dumps([value]))


def test_one_call_of_one_tool_is_forced() -> None:
    grammar = tool_call_grammar([WEATHER], HERMES, many=False)
    assert matches(grammar, f"<tool_call>\n{BUCHAREST}\n</tool_call>")
    for text in (
        "",
        "Hello",
        "<tool_call>\n{}\n</tool_call>",
        f"<tool_call>\n{BUCHAREST}",
        f" <tool_call>\n{BUCHAREST}\n</tool_call>",
        f"<tool_call>\n{BUCHAREST}\n</tool_call>\n<tool_call>\n{BUCHAREST}\n</tool_call>",
        '<tool_call>\n{"name": "get", "arguments": {"city": 5}}\n</tool_call>',
        '<tool_call>\n{"name": "got", "arguments": {"city": "x"}}\n</tool_call>',
    ):
        assert not matches(grammar, text)


def test_a_name_may_begin_with_another_and_each_keeps_its_own_parameters() -> None:
    grammar = tool_call_grammar([WEATHER, NOW], HERMES, many=True)
    now = '{"name": "get_now", "arguments": {}}'
    assert matches(grammar, f"<tool_call>\n{now}\n</tool_call>\n<tool_call>\n{BUCHAREST}\n</tool_call>")
    assert not matches(grammar, '<tool_call>\n{"name": "get_now", "arguments": {"city": "x"}}\n</tool_call>')
    assert not matches(grammar, '<tool_call>\n{"name": "get", "arguments": {}}\n</tool_call>')


def test_calls_in_a_list_take_the_words_of_the_template() -> None:
    grammar = tool_call_grammar([NOW], BARE_LIST, many=True)
    call = '{"name": "get_now", "parameters": {}}'
    assert matches(grammar, f"[{call}]")
    assert matches(grammar, f"[{call}, {call}, {call}]")
    assert not matches(grammar, f"[{call}")
    assert not matches(tool_call_grammar([NOW], BARE_LIST, many=False), f"[{call}, {call}]")


@pytest.mark.parametrize(
    "text", ["", "Hello <b>world</b>\n", f"Wait.\n<tool_call>\n{BUCHAREST}\n</tool_call>"]
)
def test_text_may_come_before_calls_that_are_not_forced(text: str) -> None:
    assert matches(tool_call_grammar([WEATHER], HERMES, many=False, is_forced=False), text)


def test_after_the_sign_of_a_call_only_a_call_can_follow() -> None:
    grammar = tool_call_grammar([WEATHER], HERMES, many=False, is_forced=False)
    assert not matches(grammar, "Use <tool_call> for that")
    assert not matches(grammar, f"<tool_call>\n{BUCHAREST}\n</tool_call> and text")


def test_a_sign_without_letters_does_not_forbid_brackets_in_text() -> None:
    grammar = tool_call_grammar([NOW], BARE_LIST, many=False, is_forced=False)
    assert matches(grammar, "The list [1, 2] has a { brace")
    assert matches(grammar, 'So: [{"name": "get_now", "parameters": {}}]')
    assert not matches(grammar, 'So: [{"name": "nothing"}]')


@pytest.mark.parametrize("is_forced", [True, False])
def test_control_tokens_of_the_wrapper_are_the_tokens_themselves(*, is_forced: bool) -> None:
    wrapper = CallWrapper("<|call|>", "", "\n", "\n", "")
    grammar = tool_call_grammar(
        [NOW], wrapper, many=True, is_forced=is_forced, control_tokens={"<|call|>": _Bytes.control_token_id}
    )
    call = [_Bytes.control_token_id, *b'{"name": "get_now", "arguments": {}}']
    assert matches(grammar, [*b"\n", *call, *b"\n", *call])
    assert matches(grammar, list(b"\nHello <|call|>")) is not is_forced
    assert matches(grammar, [*b"Hello", *call]) is not is_forced


def test_references_lead_into_the_tools_own_schema() -> None:
    schema = {"type": "object", "properties": {"p": {"$ref": "#/$defs/p"}}, "$defs": {"p": {"enum": ["x"]}}}
    grammar = tool_call_grammar([ToolSchema("f", schema)], CallWrapper("", "", ""), many=False)
    assert matches(grammar, '{"name": "f", "arguments": {"p": "x"}}')
    assert not matches(grammar, '{"name": "f", "arguments": {"p": "y"}}')


def test_arguments_are_an_object_whatever_the_schema_says() -> None:
    grammar = tool_call_grammar([ToolSchema("f", {"type": "string"})], CallWrapper("", "", ""), many=False)
    assert matches(grammar, '{"name": "f", "arguments": {"a": 1}}')
    assert not matches(grammar, '{"name": "f", "arguments": "a"}')


def test_a_fault_names_the_tool_it_is_in() -> None:
    bad = ToolSchema(
        "f", {"type": "object", "properties": {"a": {"not": {}}}}, "tools[3].function.parameters"
    )
    with pytest.raises(RequestError) as caught:
        tool_call_grammar([WEATHER, bad], HERMES, many=True)
    assert caught.value.param == "tools[3].function.parameters.properties.a.not"


@settings(max_examples=40, deadline=None)
@given(
    words=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=6), min_size=5, max_size=5
    )
)
def test_any_text_can_wrap_calls(words: list[str]) -> None:
    wrapper = CallWrapper(*words)
    call = '{"name": "get_now", "arguments": {}}'
    one = f"{wrapper.begin}{call}{wrapper.end}"
    grammar = tool_call_grammar([NOW], wrapper, many=True)
    assert matches(grammar, f"{wrapper.list_begin}{one}{wrapper.separator}{one}{wrapper.list_end}")


def test_an_answer_in_a_form_may_stand_instead_of_calls() -> None:
    answer = json_schema_grammar({"type": "object", "properties": {"name": {"enum": ["Ada", "get"]}}})
    grammar = tool_call_grammar([NOW], HERMES, many=False, is_forced=False, answer=answer)
    assert matches(grammar, '<tool_call>\n{"name": "get_now", "arguments": {}}\n</tool_call>')
    assert matches(grammar, '{"name": "Ada"}')
    assert matches(grammar, '{"name":"get", "more": [1]}')
    assert not matches(grammar, "Hello")
    with pytest.raises(RequestError, match="begin like any JSON"):
        tool_call_grammar([NOW], BARE_LIST, many=False, is_forced=False, answer=answer)
