"""Anthropic's form of tools and of the choice between them, as the chat layer knows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from turnwise_server.api.validation import JsonObject, RequestModel, Text, missing_parameter
from turnwise_server.chat.tools import Tool, ToolUse
from turnwise_server.errors import RequestError

ToolName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")]


class RequestTool(RequestModel):
    """A function of the client's. Tools that Anthropic runs by itself have other types."""

    name: ToolName
    type: Annotated[str, Field(max_length=64)] | None = None
    description: Text | None = None
    input_schema: JsonObject | None = None
    strict: bool | None = None
    cache_control: dict[str, object] | None = None


class ToolChoice(RequestModel):
    """Whether the model may call tools, must, or must call a certain one."""

    type: Literal["auto", "any", "tool", "none"]
    name: ToolName | None = None
    disable_parallel_tool_use: bool | None = None


def tool_use(tools: Sequence[RequestTool], choice: ToolChoice | None) -> ToolUse:
    """Return what a request says about tools.

    Raises:
        RequestError: a tool is not a function of the client's, or the choice is none of the tools.
    """
    own = tuple(_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools))
    names = [tool.name for tool in own]
    if len(set(names)) < len(names):
        raise RequestError(
            "Invalid 'tools': two of them have the same name.", param="tools", code="invalid_value"
        )
    if choice is None:
        return ToolUse(own)
    allowed = _chosen(own, choice)
    modes: dict[str, Literal["none", "auto", "required"]] = {"auto": "auto", "none": "none"}
    mode = modes.get(choice.type, "required")
    if mode == "required" and not own:
        raise RequestError(
            f"Invalid value: 'tool_choice' of type {choice.type!r} needs 'tools'.",
            param="tool_choice",
            code="invalid_value",
        )
    return ToolUse(own, mode, allowed, is_parallel=not choice.disable_parallel_tool_use)


def _tool(tool: RequestTool, path: str) -> Tool:
    if tool.type not in (None, "custom"):
        raise RequestError(
            f"Unsupported value: '{path}.type' supports only 'custom': this server runs no tools.",
            param=f"{path}.type",
            code="unsupported_value",
        )
    if tool.input_schema is None:
        raise missing_parameter(f"{path}.input_schema")
    return Tool(
        tool.name,
        tool.description or "",
        tool.input_schema,
        is_strict=bool(tool.strict),
        param=f"{path}.input_schema",
    )


def _chosen(tools: Sequence[Tool], choice: ToolChoice) -> frozenset[str] | None:
    if choice.type != "tool":
        return None
    if choice.name is None:
        raise missing_parameter("tool_choice.name")
    if choice.name not in {tool.name for tool in tools}:
        raise RequestError(
            f"Invalid value: 'tool_choice.name' is {choice.name!r}, which is none of the tools.",
            param="tool_choice.name",
            code="invalid_value",
        )
    return frozenset({choice.name})
