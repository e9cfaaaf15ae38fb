"""Tools and text formats as /v1/responses writes them: flat, where chat completions nest them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator

from turnwise_server.api.chat_completions.response_format import ResponseFormat
from turnwise_server.api.chat_completions.tools import RequestTool, ToolChoice, ToolChoiceObject
from turnwise_server.errors import RequestError

_LEVELS = (".function", ".allowed_tools", ".json_schema")
"""What paths of chat completions have more than paths of responses."""


def _nested(level: str, value: object) -> object:
    """Put all but the type of an object one level deeper, where the checks of chat completions look for it."""
    if not isinstance(value, Mapping):
        return value
    rest = {key: part for key, part in value.items() if key != "type"}
    return {key: part for key, part in value.items() if key == "type"} | {level: rest}


def _nested_function(value: object) -> object:
    return _nested("function", value)


def _nested_choice(value: object) -> object:
    if not isinstance(value, Mapping) or value.get("type") != "allowed_tools":
        return _nested_function(value)
    tools = value.get("tools")
    if isinstance(tools, list):
        value = {**value, "tools": [_nested_function(tool) for tool in tools]}
    return _nested("allowed_tools", value)


def _nested_format(value: object) -> object:
    is_schema = isinstance(value, Mapping) and value.get("type") == "json_schema"
    return _nested("json_schema", value) if is_schema else value


FlatTool = Annotated[RequestTool, BeforeValidator(_nested_function)]
FlatToolChoice = Annotated[ToolChoice, BeforeValidator(_nested_choice)]
TextFormat = Annotated[ResponseFormat, BeforeValidator(_nested_format)]


def flat(error: RequestError) -> RequestError:
    """Let a refusal name the place of a flat parameter."""
    own = param = error.param or ""
    if param.startswith(("tools", "tool_choice", "text.format")):
        for level in _LEVELS:
            own = own.replace(level, "")
        error.message = error.message.replace(param, own)
        error.param = own
    return error


def shown_tool(tool: RequestTool) -> dict[str, Any]:
    """Return a tool as responses show it."""
    function = tool.function
    return {
        "type": "function",
        "description": function.description,
        "name": function.name,
        "parameters": function.parameters,
        "strict": bool(function.strict),
    }


def shown_choice(choice: str | ToolChoiceObject | None) -> str | dict[str, Any]:
    """Return a tool choice as responses show it."""
    match choice:
        case None:
            return "auto"
        case str():
            return choice
    if choice.allowed_tools is not None:
        names = [tool.function.name for tool in choice.allowed_tools.tools]
        tools = [{"type": "function", "name": name} for name in names]
        return {"type": "allowed_tools", "mode": choice.allowed_tools.mode, "tools": tools}
    return {"type": "function", "name": choice.function and choice.function.name}


def shown_format(form: ResponseFormat | None) -> dict[str, Any]:
    """Return a text format as responses show it. A schema always holds strictly."""
    if form is None or form.json_schema is None:
        return {"type": "text" if form is None else form.type}
    schema = form.json_schema
    return {
        "type": "json_schema",
        "description": schema.description,
        "name": schema.name,
        "schema": schema.json_schema,
        "strict": True,
    }
