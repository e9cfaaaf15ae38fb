"""Writes the grammars that hold a reply to a form: a JSON object, a JSON schema, calls of tools. Pure: text out.

A grammar is text in llguidance's own form, for `SamplingParams.grammar`. JSON in it has no whitespace but one space
that may follow a comma or a colon, so that no model can babble blanks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from turnwise_server.chat.json_schema import checked_schema
from turnwise_server.engine.grammar_text import check_grammar
from turnwise_server.errors import RequestError

_JSON_STYLE = {
    "whitespace_flexible": False,
    "item_separator": ", ?",
    "key_separator": ": ?",
    "json_allowed_escapes": 'nrbtf\\"',
}
"""Without \\uXXXX no half of a surrogate pair can be written, and no property's name in disguise."""


@dataclass(frozen=True, slots=True)
class ToolSchema:
    """A tool that the model may call."""

    name: str
    parameters: Mapping[str, object]
    """JSON schema of its arguments, which are an object whatever the schema says; {} stands for no arguments."""
    param: str = "tools"
    """Where the schema stands in the request, for error messages: such as `tools[0].function.parameters`."""


@dataclass(frozen=True, slots=True)
class CallWrapper:
    """How a model writes calls: `list_begin begin {name_key: name, arguments_key: {...}} end separator ... list_end`.

    All but the keys are literal text, which may be empty.
    """

    begin: str
    end: str
    separator: str
    list_begin: str = ""
    list_end: str = ""
    name_key: str = "name"
    arguments_key: str = "arguments"


def json_object_grammar() -> str:
    """Return a grammar of every JSON object."""
    return f"start: {_json({'type': 'object'})}"


def json_schema_grammar(
    schema: Mapping[str, object], *, param: str = "response_format.json_schema.schema"
) -> str:
    """Return a grammar of the JSON values that are valid under `schema`; properties come in the schema's order.

    Raises:
        RequestError: the schema is no schema, is too large, uses a keyword that is not supported or admits nothing. The
            message names the keyword, its `param` begins with `param`.
    """
    grammar = f"start: {_json(checked_schema(schema, param=param))}"
    check_grammar(grammar, param=param)
    return grammar


def tool_call_grammar(
    tools: Sequence[ToolSchema],
    wrapper: CallWrapper,
    *,
    many: bool,
    is_forced: bool = True,
    answer: str | None = None,
    control_tokens: Mapping[str, int] | None = None,
) -> str:
    """Return a grammar of replies that call tools.

    Args:
        tools: those that may be called, at least one.
        wrapper: how the model writes calls.
        many: whether a reply may have more than one call.
        is_forced: the reply is nothing but calls. Otherwise it is text, or text (which may be empty) and then calls;
            from the first `list_begin begin` on, only calls can follow.
        answer: the grammar of a reply that calls nothing, as the functions above write it, where calls are not forced;
            no text comes before calls then. None is any text.
        control_tokens: tokens by their text; where the wrapper's texts have such a text, the token itself is meant.

    Raises:
        RequestError: parameters of a tool cannot be held to, see `json_schema_grammar`; `param` begins with the tool's.
            Or an answer could not be told from a call.
    """
    calls = _CallRules(wrapper, control_tokens or {})
    start = (
        calls.forced() if is_forced else calls.after_text() if answer is None else calls.instead_of(answer)
    )
    grammar = "\n".join([*start, *calls.rules(tools, many=many)])
    check_grammar(grammar, param="tools")
    return grammar


class _CallRules:
    """The rules of a grammar of calls, in llguidance's dialect of Lark."""

    def __init__(self, wrapper: CallWrapper, control_tokens: Mapping[str, int]) -> None:
        self._wrapper = wrapper
        self._control_tokens = control_tokens
        names = sorted(control_tokens, key=len, reverse=True)
        self._cut = re.compile("|".join(map(re.escape, names))) if names else None
        self._head = f"{{{_quoted(wrapper.name_key)}: "
        self._opening = wrapper.list_begin + wrapper.begin

    def rules(self, tools: Sequence[ToolSchema], *, many: bool) -> list[str]:
        """Return the rules of calls, from the first one's name on."""
        wrapper = self._wrapper
        again = self._symbols(wrapper.separator + wrapper.begin + self._head)
        names = " | ".join(f"tool_{index}" for index in range(len(tools)))
        return [
            f"calls: call{f' ({again} call)*' if many else ''} {self._symbols(wrapper.list_end)}".rstrip(),
            f"call: ({names}) {self._symbols('}' + wrapper.end)}",
            *(self._tool(f"tool_{index}", tool) for index, tool in enumerate(tools)),
        ]

    def forced(self) -> list[str]:
        """Return the beginning of a reply that is nothing but calls."""
        return [f"start: {self._symbols(self._opening + self._head)} calls"]

    def instead_of(self, answer: str) -> list[str]:
        """Return the beginning of a reply that is either calls or an answer in a form of its own."""
        if not any(map(str.isalpha, self._opening)):
            raise RequestError(
                "'response_format' cannot be given together with 'tools' that need not be called: calls of this model "
                "begin like any JSON.",
                param="response_format",
                code="unsupported_value",
            )
        opening = self._symbols(self._opening + self._head)
        return [f"start: answer | {opening} calls", f"answer: {answer.removeprefix('start: ')}"]

    def after_text(self) -> list[str]:
        """Return how calls begin after any text: at a control token, or at words that begin nothing but calls."""
        rules = ["start: TEXT | opening calls", r"TEXT: /(.|\n)*/"]
        token = self._cut.search(self._opening) if self._cut else None
        if token:
            return [*rules, f"opening: TEXT {self._symbols(self._opening[token.start() :] + self._head)}"]
        whole = (self._opening + self._head).lstrip()
        sign = self._opening.strip()
        if not any(map(str.isalpha, sign)):
            sign = whole.rstrip()
        return [*rules, f"sign[lazy]: TEXT {_lark(sign)}", f"opening: sign {_lark(whole[len(sign) :])}"]

    def _tool(self, rule: str, tool: ToolSchema) -> str:
        schema = checked_schema(_arguments(tool.parameters), param=tool.param)
        before = f"{_quoted(tool.name)}, {_quoted(self._wrapper.arguments_key)}: "
        return f"{rule}: {_lark(before)} {_json(schema)}"

    def _symbols(self, text: str) -> str:
        """Write literal text, and control tokens in it as the tokens they are."""
        symbols: list[str] = []
        end = 0
        for token in self._cut.finditer(text) if self._cut else ():
            symbols += [_lark(text[end : token.start()]), f"<[{self._control_tokens[token[0]]}]>"]
            end = token.end()
        return " ".join([*symbols, _lark(text[end:])]).strip()


def _arguments(parameters: Mapping[str, object]) -> Mapping[str, object]:
    if not parameters:
        return {"type": "object", "properties": {}, "additionalProperties": False}
    return {**parameters, "type": "object"}


def _json(schema: Mapping[str, object]) -> str:
    return f"%json {json.dumps({**schema, 'x-guidance': _JSON_STYLE})}"


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


def _lark(text: str) -> str:
    """Write literal text as Lark does, whose escapes are JSON's; nothing for no text."""
    return json.dumps(text) if text else ""
