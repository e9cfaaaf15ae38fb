"""The tools a client offers, which of them the model may or must call, and the calls it made. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Tool:
    """A function of the client's."""

    name: str
    description: str = ""
    parameters: Mapping[str, object] = field(default_factory=dict)
    """JSON schema of its arguments; {} stands for no arguments."""
    is_strict: bool = False
    """Calls must be valid under the schema, also where the model decides for itself whether to call."""
    param: str = "tools"
    """Where the schema stands in the request, for error messages."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call in the conversation so far; `arguments` is JSON, or what an earlier model took for it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolUse:
    """What a request says about tools. Without tools nothing is called."""

    tools: tuple[Tool, ...] = ()
    mode: Literal["none", "auto", "required"] = "auto"
    """May not call, may call, must call."""
    allowed: frozenset[str] | None = None
    """The only names that may be called; None allows every tool."""
    is_parallel: bool = True
    """Whether one reply may make several calls."""

    @property
    def callable(self) -> tuple[Tool, ...]:
        """The tools that this reply may call."""
        if self.mode == "none":
            return ()
        return tuple(tool for tool in self.tools if self.allowed is None or tool.name in self.allowed)
