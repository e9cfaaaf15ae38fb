"""Tool calls are found in text: whatever the cuts, calls are whole, and what is none stays content."""

import itertools
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from turnwise_server.chat.call_form import CallForm
from turnwise_server.chat.structured import CallWrapper
from turnwise_server.chat.tool_calls import CallDelta, Output, ToolCallParser, new_call_id

HERMES = CallForm(CallWrapper("<tool_call>\n", "\n</tool_call>", "\n"))
LLAMA = CallForm(CallWrapper("", "", "", arguments_key="parameters"), can_be_many=False)
MISTRAL = CallForm(CallWrapper("", "", ", ", list_begin="[TOOL_CALLS] [", list_end="]"))
XLAM = CallForm(CallWrapper("", "", ", ", list_begin="[", list_end="]"))
FORMS = {"hermes": HERMES, "llama": LLAMA, "mistral": MISTRAL, "xlam": XLAM}

Result = tuple[str, list[tuple[str, str]]]


def parser(form: CallForm, **options: object) -> ToolCallParser:
    ids = itertools.count()
    return ToolCallParser(form, {"f", "get_weather"}, new_id=lambda: f"call_{next(ids)}", **options)  # type: ignore[arg-type]


def outputs(form: CallForm, pieces: list[str], *, is_cut: bool = False, **options: object) -> list[Output]:
    reader = parser(form, **options)
    return [
        *itertools.chain.from_iterable(reader.feed(piece) for piece in pieces),
        *reader.finish(is_cut=is_cut),
    ]


def result(given_out: list[Output]) -> Result:
    """Content, and (name, arguments) of the calls."""
    content = "".join(output for output in given_out if isinstance(output, str))
    calls: list[tuple[str, str]] = []
    for output in given_out:
        if isinstance(output, CallDelta):
            if output.id is not None:
                assert (output.call, output.arguments, output.id) == (len(calls), "", f"call_{len(calls)}")
                calls.append((output.name or "", ""))
            else:
                assert output.call == len(calls) - 1
                calls[-1] = (calls[-1][0], calls[-1][1] + output.arguments)
    return content, calls


def read(form: CallForm, text: str, **options: object) -> Result:
    return result(outputs(form, [text], **options))  # type: ignore[arg-type]


F = ("f", '{"a": 1}')

REPLIES: list[tuple[str, str, Result]] = [
    ("hermes", '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>', ("", [F])),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>\n', ("", [F])),
    ("hermes", '{"name": "f", "arguments": {"a": 1}}', ('{"name": "f", "arguments": {"a": 1}}', [])),
    (
        "hermes",
        'Let me see.\n<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>',
        ("Let me see.", [F]),
    ),
    (
        "hermes",
        (
            '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>\n'
            '<tool_call>\n{"arguments": {}, "name": "get_weather"}\n</tool_call>'
        ),
        ("", [F, ("get_weather", "{}")]),
    ),
    ("hermes", '<tool_call>\n{"name": "f", "arguments": {"a": 1}}', ("", [F])),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call> Done.', (" Done.", [F])),
    (
        "hermes",
        '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>',
        ("", [("f", '{"a": 1}')]),
    ),
    ("hermes", '<tool_call>{"name": "f"}</tool_call>', ("", [("f", "{}")])),
    ("hermes", '<tool_call>{"name": "f", "arguments": null}</tool_call>', ("", [("f", "{}")])),
    (
        "hermes",
        '<tool_call>{"name": "f", "arguments": {"text": "</tool_call>}"}}</tool_call>',
        ("", [("f", '{"text": "</tool_call>}"}')]),
    ),
    ("llama", '{"name": "f", "parameters": {"a": 1}}', ("", [F])),
    ("llama", '\n{"name": "f", "parameters": {"a": 1}}\n', ("", [F])),
    ("llama", 'Sure: {"name": "f", "parameters": {}}', ('Sure: {"name": "f", "parameters": {}}', [])),
    ("llama", '{"answer": {"a": 1}}', ('{"answer": {"a": 1}}', [])),
    (
        "llama",
        '{"type": "function", "name": "f", "parameters": {"a": 1}}',
        ("", [F]),
    ),
    ("mistral", '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}]', ("", [F])),
    ("mistral", '[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}, "id": "abcdefghi"}]', ("", [F])),
    ("mistral", '[TOOL_CALLS] {"name": "f", "arguments": {"a": 1}}', ("", [F])),
    ("xlam", '[{"name": "f", "arguments": {"a": 1}},\n{"name": "f", "arguments": {"a": 1}}]\n', ("", [F, F])),
    (
        "mistral",
        'Yes [TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}, {"name": "f", "arguments": {"a": 1}}] no',
        ("Yes no", [F, F]),
    ),
]


@pytest.mark.parametrize(("form", "text", "expected"), REPLIES)
def test_calls_are_found(form: str, text: str, expected: Result) -> None:
    assert read(FORMS[form], text) == expected


NO_CALLS = [
    ("hermes", '<tool_call>\n{"name": "unknown", "arguments": {}}\n</tool_call>'),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1,}}</tool_call>'),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>'),
    ("hermes", '<tool_call>{"name": "f", "arguments": [1]}</tool_call>'),
    ("hermes", '<tool_call>{"name": "f", "arguments": "no object"}</tool_call>'),
    ("hermes", '<tool_call>{"name": ["f"], "arguments": {}}</tool_call>'),
    ("hermes", '<tool_call>{"name" "f", "arguments": {}}</tool_call>'),
    ("hermes", '<tool_call>{"name": "f" "arguments": {}}</tool_call>'),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1}'),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": [}}</tool_call>'),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": "\n"}}</tool_call>'),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": "\\ud800"}}</tool_call>'),
    ("hermes", "<tool_call>call f, please</tool_call>"),
    ("hermes", "<tool_call>"),
    ("hermes", "a < b, and <tool"),
    ("hermes", " \n"),
    ("hermes", "<tool_call>{}</tool_call>"),
    ("hermes", '<tool_call>"name"</tool_call>'),
    ("hermes", '<tool_call>{"name": "f", "arguments": ' + '{"a":' * 300 + "1" + "}" * 301 + "</tool_call>"),
    ("llama", '{"name": "f", "parameters": '),
    ("llama", '{"name": "f", "arguments": {}}'),
    ("llama", "{ braces } are text"),
    ("llama", ""),
    ("mistral", "[TOOL_CALLS] [oops]"),
    ("xlam", "[1] says so, [2] does not"),
    ("xlam", '[{"answer": 42}]'),
    ("mistral", '[{"name": "f", "arguments": {}}]'),
]


@pytest.mark.parametrize(("form", "text"), NO_CALLS)
def test_what_is_no_call_comes_back_as_content_character_for_character(form: str, text: str) -> None:
    assert read(FORMS[form], text) == (text, [])


def test_a_broken_call_does_not_spoil_the_next() -> None:
    good = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
    assert read(HERMES, '<tool_call>{"name": nope}</tool_call>' + good) == (
        '<tool_call>{"name": nope}</tool_call>',
        [F],
    )


def test_a_call_inside_the_text_of_a_broken_one_is_not_made() -> None:
    inner = json.dumps('<tool_call>{"name": "f", "arguments": {}}</tool_call>')
    text = f'<tool_call>{{"name": "f", "arguments": {{"quote": {inner}, }}}}</tool_call>'
    assert read(HERMES, text) == (text, [])


def test_a_call_cut_by_length_keeps_its_part() -> None:
    cut = '<tool_call>{"name": "f", "arguments": {"a": 1'
    assert read(HERMES, cut, is_cut=True) == ("", [("f", '{"a": 1')])
    assert read(HERMES, cut[:25], is_cut=True) == (cut[:25], [])


def test_certain_calls_are_handed_out_as_they_come() -> None:
    reader = parser(HERMES, is_certain=True)
    assert reader.feed('<tool_call>\n{"name": "f", ') == []
    assert reader.feed('"arguments": {"a"') == [CallDelta(0, "", "call_0", "f"), CallDelta(0, '{"a"')]
    assert reader.held == 0
    assert reader.feed(": 1") == [CallDelta(0, ": 1")]
    assert reader.feed("}}\n</tool") == [CallDelta(0, "}")]
    assert reader.finish(is_cut=False) == []


def test_uncertain_calls_are_handed_out_when_they_are_complete() -> None:
    reader = parser(HERMES)
    assert reader.feed('<tool_call>\n{"name": "f", "arguments": {"a": 1}') == []
    assert reader.feed("}") == [CallDelta(0, "", "call_0", "f"), CallDelta(0, '{"a": 1}')]


def test_nothing_counts_after_the_last_call_that_may_be() -> None:
    call = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
    reader = parser(HERMES, max_calls=1)
    assert len(reader.feed(call + call)) == 2
    assert reader.is_complete
    assert reader.feed("more") == []
    assert reader.finish(is_cut=False) == []


def test_a_call_whose_marker_ended_the_prompt_begins_with_its_object() -> None:
    assert read(MISTRAL, ' [{"name": "f", "arguments": {"a": 1}}]', has_begun=True) == ("", [F])
    assert read(HERMES, '\n{"name": "f", "arguments": {"a": 1}}', has_begun=True, is_certain=True) == (
        "",
        [F],
    )


fragments = st.lists(
    st.sampled_from(
        [
            *("<tool_call>", "</tool_call>", "\n", " ", "{", "}", '"', ":", ",", "[", "]", "\\", "1", "x"),
            *('{"name": "f", "arguments": {"a": 1}}', '{"name": "f", "parameters": {"a": 1}}', '"name": "f"'),
            *('"arguments": {', '"arguments"', "[TOOL_CALLS]", "<tool", "null", "é", '"id": "x", ', "Hello."),
        ]
    ),
    max_size=12,
).map("".join)


@given(
    form=st.sampled_from(sorted(FORMS)), text=fragments, cuts=st.sets(st.integers(0, 120)), flags=st.data()
)
def test_the_outcome_does_not_depend_on_the_cuts(
    form: str, text: str, cuts: set[int], flags: st.DataObject
) -> None:
    options: dict[str, bool | int | None] = {
        name: flags.draw(st.booleans()) for name in ("is_certain", "has_begun", "is_cut")
    }
    options["max_calls"] = flags.draw(st.sampled_from([None, 1]))
    edges = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    pieces = [text[start:end] for start, end in itertools.pairwise(edges)]
    assert result(outputs(FORMS[form], pieces, **options)) == read(FORMS[form], text, **options)  # type: ignore[arg-type]


@given(form=st.sampled_from(sorted(FORMS)), text=fragments)
@example(form="hermes", text='<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>')
def test_uncertain_calls_have_valid_arguments_and_nothing_is_lost(form: str, text: str) -> None:
    content, calls = read(FORMS[form], text)
    for name, arguments in calls:
        assert name == "f"
        assert isinstance(json.loads(arguments), dict)
        assert arguments in text.replace('\\"', '"') or arguments == "{}"
    if not calls:
        assert content == text
    rest = iter(text)
    assert all(char in rest for char in content)


@given(form=st.sampled_from(sorted(FORMS)), text=fragments)
def test_held_characters_are_those_whose_meaning_is_open(form: str, text: str) -> None:
    reader = parser(FORMS[form])
    given_out = reader.feed(text)
    assert 0 <= reader.held <= len(text)
    if all(isinstance(output, str) for output in given_out) and not reader.calls:
        assert sum(map(len, given_out)) == len(text) - reader.held  # type: ignore[arg-type]


def test_ids_are_like_openais() -> None:
    first, second = new_call_id(), new_call_id()
    assert first != second
    assert first.startswith("call_")
    assert len(first) >= 29
    assert first[5:].isalnum()
