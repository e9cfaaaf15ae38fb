"""Decides how the calls of one reply are asked for and read: the grammar, the form, the names. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from turnwise_server.chat.call_form import CallForm
from turnwise_server.chat.structured import ToolSchema, tool_call_grammar
from turnwise_server.chat.tool_calls import ToolCallParser
from turnwise_server.chat.tools import Tool, ToolUse
from turnwise_server.errors import RequestError

_ANY_OBJECT = {"type": "object"}


@dataclass(frozen=True, slots=True)
class CallPlan:
    """What a reply that may call tools is held to, and how its text is read."""

    form: CallForm
    names: frozenset[str]
    grammar: str | None
    """What the engine holds the reply to; None leaves it to the model."""
    max_calls: int | None
    control_ids: frozenset[int]
    """Control tokens that belong to the form, and so must be seen in the text."""

    def parser(self) -> ToolCallParser:
        """Return a fresh parser for one choice."""
        return ToolCallParser(
            self.form, self.names, is_certain=self.grammar is not None, max_calls=self.max_calls
        )


def plan_calls(
    use: ToolUse,
    form: CallForm,
    control_tokens: Mapping[str, int],
    *,
    answer: str | None = None,
    takes_grammars: bool = True,
) -> CallPlan | None:
    """Return the plan for a request's tools, or None if nothing may be called.

    A grammar holds the reply where it must be a call, where a strict tool may be called, and where a reply that is no
    call must follow the grammar `answer`.

    Raises:
        RequestError: parameters that must be held to use keywords that are not supported, or a grammar is needed and
            the model takes none.
    """
    tools = use.callable
    if not tools:
        return None
    is_forced = use.mode == "required"
    grammar = None
    if is_forced or answer is not None or any(tool.is_strict for tool in tools):
        if not takes_grammars:
            raise _no_grammars("tool_choice" if is_forced else "tools")
        grammar = tool_call_grammar(
            [_schema(tool, is_held=is_forced or tool.is_strict) for tool in tools],
            form.wrapper,
            many=use.is_parallel and form.can_be_many,
            is_forced=is_forced,
            answer=answer,
            control_tokens=control_tokens,
        )
    return CallPlan(
        form=form,
        names=frozenset(tool.name for tool in tools),
        grammar=grammar,
        max_calls=None if use.is_parallel else 1,
        control_ids=frozenset(control_tokens.values()),
    )


def _schema(tool: Tool, *, is_held: bool) -> ToolSchema:
    return ToolSchema(tool.name, tool.parameters if is_held else _ANY_OBJECT, tool.param)


def _no_grammars(param: str) -> RequestError:
    return RequestError(
        f"Unsupported value: the tokenizer of this model cannot hold a reply to a form; {param!r} supports only calls "
        "that the model may leave, of tools that are not strict.",
        param=param,
        code="unsupported_value",
    )
