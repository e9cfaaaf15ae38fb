"""The parts of a chat request that speak of tools: what is offered, what must be called, what was called."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from turnwise_server.api.errors import shorten
from turnwise_server.api.validation import (
    JsonObject,
    NoNul,
    RequestModel,
    Text,
    fault,
    missing_parameter,
    type_name,
)
from turnwise_server.chat.tools import Tool, ToolCall, ToolUse
from turnwise_server.errors import RequestError

MAX_TOOLS = 128
MAX_CALLS = 128

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def _function_name(value: str) -> str:
    if _NAME.fullmatch(value):
        return value
    raise fault(
        "invalid_value",
        "Invalid '{param}': string does not match pattern. Expected a string that matches the pattern "
        "'^[a-zA-Z0-9_-]{1,64}$'.",
    )


def _only(*types: str) -> AfterValidator:
    def check(value: str) -> str:
        if value in types:
            return value
        raise fault(
            "unsupported_value",
            f"Unsupported value: '{{param}}' does not support {shorten(value, 40)!r} with this model. "
            f"Supported values are: {', '.join(map(repr, types))}.",
        )

    return AfterValidator(check)


def _string_or_object(value: object) -> object:
    if isinstance(value, str | dict):
        return value
    raise fault(
        "invalid_type",
        f"Invalid type for '{{param}}': expected one of a string or object, but got {type_name(value)} instead.",
    )


FunctionName = Annotated[str, AfterValidator(_function_name)]
CallId = Annotated[str, Field(min_length=1, max_length=256), NoNul]


class RequestFunction(RequestModel):
    """A function that the model may call."""

    name: FunctionName
    description: Text | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class RequestTool(RequestModel):
    """A tool: a function is the only kind that a model can call here."""

    type: Annotated[str, _only("function")]
    function: RequestFunction


class NamedFunction(RequestModel):
    """A function by its name."""

    name: FunctionName


class NamedTool(RequestModel):
    """A tool by its name."""

    type: Annotated[str, _only("function")]
    function: NamedFunction


class AllowedTools(RequestModel):
    """Some of the tools, and whether one of them must be called."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Field(min_length=1, max_length=MAX_TOOLS, fail_fast=True)]


class ToolChoiceObject(RequestModel):
    """The tool that must be called, or those that may be."""

    type: Annotated[str, _only("function", "allowed_tools")]
    function: NamedFunction | None = None
    allowed_tools: AllowedTools | None = None


class CalledFunction(RequestModel):
    """A function that the model has called. Names are taken as they are: the tools may have changed since."""

    name: Annotated[str, Field(min_length=1, max_length=256), NoNul]
    arguments: Text


class RequestToolCall(RequestModel):
    """A call in an assistant's message."""

    id: CallId
    type: Annotated[str, _only("function")] = "function"
    function: CalledFunction


Tools = Annotated[list[RequestTool], Field(max_length=MAX_TOOLS, fail_fast=True)]
ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("string")]
    | Annotated[ToolChoiceObject, Tag("object")],
    Discriminator(lambda value: "string" if isinstance(value, str) else "object"),
    BeforeValidator(_string_or_object),
]
ToolCalls = Annotated[list[RequestToolCall], Field(max_length=MAX_CALLS, fail_fast=True)]


def tool_calls(calls: Sequence[RequestToolCall] | None) -> tuple[ToolCall, ...]:
    """Return what the assistant called."""
    return tuple(ToolCall(call.id, call.function.name, call.function.arguments) for call in calls or ())


def tool_use(
    tools: Sequence[RequestTool] | None,
    choice: str | ToolChoiceObject | None,
    *,
    is_parallel: bool | None,
) -> ToolUse:
    """Return which tools may or must be called. An empty list of tools counts as none.

    Raises:
        RequestError: two tools of one name, or a choice that the tools do not offer.
    """
    offered = tuple(
        Tool(
            name=tool.function.name,
            description=tool.function.description or "",
            parameters=tool.function.parameters or {},
            is_strict=bool(tool.function.strict),
            param=f"tools[{index}].function.parameters",
        )
        for index, tool in enumerate(tools or ())
    )
    names = _unique_names(offered)
    if not offered and choice not in (None, "none", "auto"):
        raise RequestError(
            "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified.",
            param="tool_choice",
            code="invalid_value",
        )
    parallel = is_parallel is not False
    match choice:
        case ToolChoiceObject(type="allowed_tools"):
            return _allowed(offered, names, choice.allowed_tools, is_parallel=parallel)
        case ToolChoiceObject():
            if choice.function is None:
                raise missing_parameter("tool_choice.function")
            name = _known(choice.function.name, names)
            return ToolUse(offered, "required", frozenset({name}), is_parallel=False)
        case "none" | "required":
            return ToolUse(offered, choice, is_parallel=parallel)
    return ToolUse(offered, "auto", is_parallel=parallel)


def _allowed(
    offered: tuple[Tool, ...], names: Mapping[str, int], allowed: AllowedTools | None, *, is_parallel: bool
) -> ToolUse:
    if allowed is None:
        raise missing_parameter("tool_choice.allowed_tools")
    chosen = frozenset(_known(tool.function.name, names) for tool in allowed.tools)
    return ToolUse(offered, allowed.mode, chosen, is_parallel=is_parallel)


def _known(name: str, names: Mapping[str, int]) -> str:
    if name in names:
        return name
    raise RequestError(
        f"Invalid value for 'tool_choice': no tool of the name {name!r} is among the 'tools'.",
        param="tool_choice",
        code="invalid_value",
    )


def _unique_names(tools: Sequence[Tool]) -> dict[str, int]:
    names: dict[str, int] = {}
    for index, tool in enumerate(tools):
        if tool.name in names:
            raise RequestError(
                f"Invalid 'tools[{index}].function.name': tools[{names[tool.name]}] has the name {tool.name!r} too.",
                param=f"tools[{index}].function.name",
                code="invalid_value",
            )
        names[tool.name] = index
    return names
