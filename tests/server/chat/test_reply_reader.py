"""Tokens become content and calls; stop strings and logprobs keep to what was settled."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.tool_templates import HERMES, MISTRAL, MISTRAL_TOKENS, tool_tokenizer
from turnwise_server.chat.call_plan import CallPlan, plan_calls
from turnwise_server.chat.detokenizer import Piece
from turnwise_server.chat.reply_reader import CallReader, ReplyPiece
from turnwise_server.chat.template import ChatTemplate
from turnwise_server.chat.token_text import token_bytes
from turnwise_server.chat.tools import Tool, ToolUse

TOKENIZERS = {
    "hermes": tool_tokenizer(HERMES),
    "mistral": tool_tokenizer(MISTRAL, control_tokens=MISTRAL_TOKENS),
}
TEMPLATES = {name: ChatTemplate(tokenizer, source=name) for name, tokenizer in TOKENIZERS.items()}
CALL = '<tool_call>\n{"name": "f", "arguments": {"a": "x"}}\n</tool_call>'


def plan(name: str = "hermes", **use: object) -> CallPlan:
    template = TEMPLATES[name]
    assert template.traits.tools is not None
    made = plan_calls(
        ToolUse((Tool("f"),), **use),  # type: ignore[arg-type]
        template.traits.tools.form,
        template.call_tokens,
    )
    assert made is not None
    return made


def reader(name: str = "hermes", stops: tuple[str, ...] = (), **use: object) -> CallReader[int]:
    tokenizer = TOKENIZERS[name]
    return CallReader(tokenizer.backend_tokenizer, token_bytes(tokenizer), stops, plan(name, **use))


def encode(text: str, name: str = "hermes") -> list[int]:
    """Marks of the template as control tokens, where they are some."""
    return list(TOKENIZERS[name].encode(text, add_special_tokens=False))


def read(
    ids: list[int], made: CallReader[int], *, is_cut: bool = False
) -> tuple[str, list[tuple[str, str]], list[int]]:
    """Content, calls and notes; every token's note is its place."""
    content = ""
    calls: list[tuple[str, str]] = []
    notes: list[int] = []
    pieces: list[ReplyPiece[int]] = []
    for place, token_id in enumerate(ids):
        if not made.is_over:
            pieces += made.feed(token_id, place)
    if not made.is_over:
        pieces += made.finish(is_cut=is_cut)
    for piece in pieces:
        notes += piece.notes
        if isinstance(piece, Piece):
            content += piece.text
        elif piece.delta.name is not None:
            calls.append((piece.delta.name, ""))
        else:
            calls[-1] = (calls[-1][0], calls[-1][1] + piece.delta.arguments)
    return content, calls, notes


def test_content_calls_and_every_logprob_come_out() -> None:
    ids = encode("Let me see.\n" + CALL)
    assert read(ids, reader()) == ("Let me see.", [("f", '{"a": "x"}')], list(range(len(ids))))


def test_a_marker_that_is_a_control_token_is_seen() -> None:
    ids = encode('Hm [TOOL_CALLS] [{"name": "f", "arguments": {"a": "é"}}]', "mistral")
    assert TOKENIZERS["mistral"].convert_tokens_to_ids("[TOOL_CALLS]") in ids
    assert read(ids, reader("mistral"))[:2] == ("Hm", [("f", '{"a": "é"}')])


def test_other_control_tokens_are_no_text() -> None:
    assert read(encode("a[INST]b", "mistral"), reader("mistral"))[0] == "ab"


def test_half_a_character_before_a_control_token_is_no_text() -> None:
    half = encode("ß", "mistral")[:1]
    ids = [*half, *encode('[TOOL_CALLS] [{"name": "f", "arguments": {}}]', "mistral")]
    assert read(ids, reader("mistral"))[:2] == ("", [("f", "{}")])


def test_a_stop_string_stops_content_but_no_call() -> None:
    stops = ("name", "stop")
    made = reader(stops=stops)
    assert read(encode(f"Go.{CALL} then stop it"), made)[:2] == ("Go. then ", [("f", '{"a": "x"}')])
    assert made.stop_string == "stop"
    made = reader(stops=stops)
    assert read(encode(f"my name {CALL}"), made)[:2] == ("my ", [])
    assert made.stop_string == "name"


def test_the_beginning_of_a_stop_string_is_flushed_before_a_call() -> None:
    assert read(encode(f"st{CALL}"), reader(stops=("stop",)))[:2] == ("st", [("f", '{"a": "x"}')])


def test_a_stop_string_takes_its_logprobs_along() -> None:
    ids = encode("a b stop")
    content, _, notes = read(ids, reader(stops=("b",)))
    assert content == "a "
    assert notes == list(range(len(encode("a "))))


def test_logprobs_wait_for_what_is_held_back() -> None:
    made = reader()
    ids = encode("<tool_c")
    assert [piece for place, token_id in enumerate(ids) for piece in made.feed(token_id, place)] == []
    assert read([], made) == ("<tool_c", [], list(range(len(ids))))


def test_one_call_is_enough_where_calls_are_not_parallel() -> None:
    made = reader(is_parallel=False)
    assert read(encode(CALL + "\n" + CALL), made)[:2] == ("", [("f", '{"a": "x"}')])
    assert made.is_over


@pytest.mark.parametrize("mode", ["auto", "required"])
@given(
    text=st.sampled_from([CALL, "Hi " + CALL + "\n" + CALL, "no call", "<tool_call> half"]), data=st.data()
)
def test_a_reply_cut_at_any_token_has_whole_calls_but_for_the_last(
    mode: str, text: str, data: st.DataObject
) -> None:
    ids = encode(text)
    cut = data.draw(st.integers(0, len(ids)))
    content, calls, _ = read(ids[:cut], reader(mode=mode), is_cut=True)
    for _, arguments in calls[:-1]:
        assert isinstance(json.loads(arguments), dict)
    assert all('{"a": "x"}'.startswith(arguments) for _, arguments in calls)
    if not calls:
        assert text.startswith(content)


def test_nothing_to_call_needs_no_plan() -> None:
    traits = TEMPLATES["hermes"].traits.tools
    assert traits is not None
    assert plan_calls(ToolUse(), traits.form, {}) is None
    assert plan_calls(ToolUse((Tool("f"),), "none"), traits.form, {}) is None


def test_a_grammar_holds_what_must_be_a_call_and_what_is_strict() -> None:
    assert plan().grammar is None
    assert plan(mode="required").grammar is not None
    traits = TEMPLATES["hermes"].traits.tools
    assert traits is not None
    strict = plan_calls(ToolUse((Tool("f", is_strict=True),)), traits.form, {})
    assert strict is not None
    assert strict.grammar is not None
