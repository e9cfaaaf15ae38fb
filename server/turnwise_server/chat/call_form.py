"""Learns from a chat template what a model writes when it calls tools. Pure: it sees rendered text only.

Small conversations with words that occur nowhere else are rendered; where those words come out tells the form.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product, takewhile
from typing import Any

from turnwise_server.chat.structured import CallWrapper

Render = Callable[[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]], bool], str | None]
"""(messages, tools, whether a reply is to follow) -> text; None where the template refuses."""

_NAMES = ("zq7f3xone", "zq7f3xtwo")
_DESCRIPTION, _KEY, _VALUE, _TEXT, _RESULT = (
    f"zq7f3x{word}" for word in ("about", "key", "value", "text", "result")
)
_LONG_IDS = ("call_" + "a" * 24, "call_" + "b" * 24)
_SHORT_IDS = ("aaaaaaaaa", "bbbbbbbbb")
_USER = {"role": "user", "content": "zq7f3xuser"}
_PROBE_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": _DESCRIPTION,
            "parameters": {
                "type": "object",
                "properties": {_KEY: {"type": "string", "description": _VALUE}},
                "required": [_KEY],
            },
        },
    }
    for name in _NAMES
]


@dataclass(frozen=True, slots=True)
class CallForm:
    """What a model writes when it calls tools."""

    wrapper: CallWrapper
    can_be_many: bool = True
    """Whether the template writes several calls of one reply."""

    @property
    def is_list(self) -> bool:
        """Whether calls stand in a JSON array."""
        return (self.wrapper.list_begin + self.wrapper.begin).rstrip().endswith("[")

    @property
    def marker(self) -> str:
        """What tells calls from text; empty where they are nothing but JSON."""
        return (self.wrapper.list_begin + self.wrapper.begin).strip().removesuffix("[").rstrip()

    @property
    def end_marker(self) -> str:
        """What closes a call."""
        return self.wrapper.end.strip()

    @property
    def next_marker(self) -> str:
        """What leads from one call to the next."""
        return (self.wrapper.separator + self.wrapper.begin).strip()

    @property
    def last_marker(self) -> str:
        """What follows the last call."""
        return self.wrapper.list_end.strip()


@dataclass(frozen=True, slots=True)
class CallSpelling:
    """How a template wants earlier calls given to it."""

    has_text_arguments: bool
    """Arguments as JSON text rather than as an object."""
    has_short_ids: bool
    """Ids of nine letters and digits, and no others."""
    has_content: bool
    """Messages with calls have a content, even if it is empty."""


@dataclass(frozen=True, slots=True)
class ToolTraits:
    """What a template that knows tools does with them."""

    form: CallForm
    spelling: CallSpelling


def learn_tools(render: Render) -> ToolTraits | None:
    """Return how a template writes calls, or None if it does not write tools, calls and results, or not as JSON."""
    prompt = render([_USER], _PROBE_TOOLS, True)
    if prompt is None or not all(word in prompt for word in (*_NAMES, _DESCRIPTION, _KEY)):
        return None
    reply = render([_USER, {"role": "assistant", "content": _TEXT}], _PROBE_TOOLS, False)
    if reply is None or _TEXT not in reply:
        return None
    for choices in product((False, True), repeat=3):
        spelling = CallSpelling(*choices)

        def body(count: int, spelling: CallSpelling = spelling) -> str | None:
            text = render([_USER, _probe_calls(spelling, count)], _PROBE_TOOLS, False)
            return None if text is None else _between(text, reply)

        form = _learn_form(body(1), body(2))
        if form is not None and _writes_results(render, spelling):
            return ToolTraits(form, spelling)
    return None


def _probe_calls(spelling: CallSpelling, count: int) -> dict[str, Any]:
    ids = _SHORT_IDS if spelling.has_short_ids else _LONG_IDS
    arguments = {_KEY: _VALUE}
    calls = [
        {
            "id": call_id,
            "type": "function",
            "function": {
                "name": name,
                "arguments": json.dumps(arguments) if spelling.has_text_arguments else arguments,
            },
        }
        for call_id, name in list(zip(ids, _NAMES, strict=True))[:count]
    ]
    return {"role": "assistant", "tool_calls": calls} | ({"content": ""} if spelling.has_content else {})


def _writes_results(render: Render, spelling: CallSpelling) -> bool:
    calls = _probe_calls(spelling, 1)
    result = {
        "role": "tool",
        "tool_call_id": calls["tool_calls"][0]["id"],
        "name": _NAMES[0],
        "content": _RESULT,
    }
    text = render([_USER, calls, result], _PROBE_TOOLS, True)
    return text is not None and _RESULT in text


def _between(text: str, reply: str) -> str:
    """Return what the assistant wrote: without what stands before and after the text of a plain `reply` too."""
    rest = text[len(_common_prefix(text, reply.partition(_TEXT)[0])) :]
    return rest[: len(rest) - len(_common_suffix(rest, reply))]


def _learn_form(one: str | None, two: str | None) -> CallForm | None:
    """Learn from the text of one call, and from that of two if the template writes two."""
    alone = _find_call(one, _NAMES[0])
    if one is None or alone is None:
        return None
    before, after = one[: alone.start], one[alone.stop :]
    first, second = _find_call(two, _NAMES[0]), _find_call(two, _NAMES[1])
    if two is None or first is None or second is None:
        return CallForm(_wrapper(before, after, between=None, keys=alone), can_be_many=False)
    return CallForm(_wrapper(before, after, between=two[first.stop : second.start], keys=alone))


def _wrapper(before: str, after: str, *, between: str | None, keys: _FoundCall) -> CallWrapper:
    """Part what stands before, after and between calls into what is each call's and what is the list's."""
    if between is None:
        end, begin = ("", "") if before.rstrip().endswith("[") else (after, before)
        separator = ""
    else:
        end = _common_prefix(after, between)
        begin = _common_suffix(before, between[len(end) :])
        separator = between[len(end) : len(between) - len(begin)]
    return CallWrapper(
        begin=begin,
        end=end,
        separator=separator,
        list_begin=before[: len(before) - len(begin)],
        list_end=after[len(end) :],
        name_key=keys.name_key,
        arguments_key=keys.arguments_key,
    )


@dataclass(frozen=True, slots=True)
class _FoundCall:
    """Where the object of a call stands, and its keys of name and arguments."""

    start: int
    stop: int
    name_key: str
    arguments_key: str


def _find_call(text: str | None, name: str) -> _FoundCall | None:
    decoder = json.JSONDecoder()
    start = -1 if text is None else text.find("{")
    while text is not None and start >= 0:
        try:
            content, stop = decoder.raw_decode(text, start)
        except ValueError:
            content, stop = {}, start
        name_key = next((key for key, value in content.items() if value == name), None)
        arguments_key = next((key for key, value in content.items() if value == {_KEY: _VALUE}), None)
        if name_key is not None and arguments_key is not None:
            return _FoundCall(start, stop, name_key, arguments_key)
        start = text.find("{", start + 1)
    return None


def _common_suffix(first: str, second: str) -> str:
    return _common_prefix(first[::-1], second[::-1])[::-1]


def _common_prefix(first: str, second: str) -> str:
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    return "".join(char for char, _ in same)
