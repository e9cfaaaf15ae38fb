"""What a client may send as messages, and their one normal form. Pure: no template, no tokens.

The normal form is a `Conversation`: at most one system text and turns whose neighbours differ in role, so that every
chat template can render it. The rules are those people expect from chat APIs: nothing a client sends is dropped
silently, and what cannot be served is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from turnwise_server.chat.tools import Tool, ToolCall
from turnwise_server.errors import RequestError

Role = Literal["user", "assistant", "tool"]

SYSTEM_ROLES = ("system", "developer")


@dataclass(frozen=True, slots=True)
class ContentPart:
    """One part of a message's content: `text` of type "text", or a "refusal" given back in history."""

    type: str
    text: str


@dataclass(frozen=True, slots=True)
class ClientMessage:
    """A message as the client sent it."""

    role: str
    content: str | tuple[ContentPart, ...] | None = None
    refusal: str | None = None
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    """What the assistant called in it."""
    tool_call_id: str | None = None
    """Which call it answers, with the role "tool"."""


@dataclass(frozen=True, slots=True)
class Message:
    """A turn in normal form; `sources` counts the client's messages that were merged into it."""

    role: Role
    content: str
    name: str | None = None
    """The speaker; for the role "tool" the tool that was called."""
    sources: int = 1
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """System text and turns. Two neighbouring turns never share a role (unless named speakers differ, or tools)."""

    system: str | None
    turns: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    """What the model is told that it may call."""


def normalise(
    messages: Sequence[ClientMessage], *, keep_names: bool = False, knows_tools: bool = False
) -> Conversation:
    """Bring messages into normal form.

    System and developer messages, wherever they stand, become the one system text in their order: instructions
    stay in force and survive truncation. Consecutive messages of one role are merged with a blank line, the calls of
    the assistant with them; results of tools stay apart. `name` is dropped unless `keep_names` (the template writes
    names). Calls and results are refused unless `knows_tools` (the template writes them).

    Raises:
        RequestError: no messages, an unknown or unsupported role, content that is missing or not text, or the result
            of a call that was not made.
    """
    if not messages:
        raise RequestError(
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
            param="messages",
            code="empty_array",
        )
    system: list[str] = []
    turns: list[Message] = []
    called: dict[str, str] = {}
    for index, message in enumerate(messages):
        path = f"messages[{index}]"
        text = _text(message, path)
        role = _role(message.role, f"{path}.role", knows_tools=knows_tools)
        if role is None:
            system.append(text)
        elif role == "tool":
            name = _answered(message, called, path)
            turns.append(Message(role, text, name, tool_call_id=message.tool_call_id))
        else:
            calls = _calls(message, path, knows_tools=knows_tools)
            called |= {call.id: call.name for call in calls}
            turns.append(Message(role, text, message.name if keep_names else None, tool_calls=calls))
    return Conversation(_join(system) if system else None, tuple(_merged(turns)))


def without_oldest(messages: Sequence[ClientMessage], dropped: int) -> tuple[ClientMessage, ...]:
    """Return messages without the `dropped` oldest ones that are no system messages, as truncation leaves them out."""
    kept: list[ClientMessage] = []
    for message in messages:
        if message.role in SYSTEM_ROLES or not dropped:
            kept.append(message)
        else:
            dropped -= 1
    return tuple(kept)


def _role(role: str, param: str, *, knows_tools: bool) -> Role | None:
    """Return the turn's role, or None for a system text."""
    if role in SYSTEM_ROLES:
        return None
    if role == "user":
        return "user"
    if role == "assistant":
        return "assistant"
    if role == "tool" and knows_tools:
        return "tool"
    if role in ("tool", "function"):
        reason = "use tools and the role 'tool'" if knows_tools else "its chat template does not know tools"
        raise RequestError(
            f"Unsupported value: {param!r} does not support {role!r} with this model: {reason}.",
            param=param,
            code="unsupported_value",
        )
    raise RequestError(
        f"Invalid value: {role!r}. Supported values are: 'system', 'developer', 'user', 'assistant' and 'tool'.",
        param=param,
        code="invalid_value",
    )


def _calls(message: ClientMessage, path: str, *, knows_tools: bool) -> tuple[ToolCall, ...]:
    if message.tool_calls and message.role != "assistant":
        raise RequestError(
            f"Invalid value: '{path}.tool_calls' is only allowed in messages of the assistant.",
            param=f"{path}.tool_calls",
            code="invalid_value",
        )
    if message.tool_calls and not knows_tools:
        raise RequestError(
            f"Unsupported parameter: '{path}.tool_calls' is not supported with this model: "
            "its chat template does not know tools.",
            param=f"{path}.tool_calls",
            code="unsupported_parameter",
        )
    return message.tool_calls


def _answered(message: ClientMessage, called: Mapping[str, str], path: str) -> str:
    """Return the name of the tool whose result a message is."""
    param = f"{path}.tool_call_id"
    if message.tool_call_id is None:
        raise RequestError(
            f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
        )
    if message.tool_call_id not in called:
        raise RequestError(
            f"Invalid '{param}': no earlier message of the assistant has a tool call with this id.",
            param=param,
            code="invalid_value",
        )
    return called[message.tool_call_id]


def _text(message: ClientMessage, path: str) -> str:
    content = message.content
    if isinstance(content, str):
        return content or message.refusal or ""
    if content is None:
        if message.role == "assistant" and (message.refusal is not None or message.tool_calls):
            return message.refusal or ""
        raise RequestError(
            f"Invalid value for 'content': expected a string, but got null. ({path}.content)",
            param=f"{path}.content",
            code="invalid_type",
        )
    for index, part in enumerate(content):
        allowed = ("text", "refusal") if message.role == "assistant" else ("text",)
        if part.type not in allowed:
            raise RequestError(
                f"Unsupported value: {part.type!r} content is not supported by this model, which reads text only.",
                param=f"{path}.content[{index}].type",
                code="unsupported_value",
            )
    return "\n".join(part.text for part in content)


def _merged(turns: Iterable[Message]) -> Iterable[Message]:
    pending: Message | None = None
    for turn in turns:
        if pending is None:
            pending = turn
        elif turn.role != "tool" and (pending.role, pending.name) == (turn.role, turn.name):
            pending = replace(
                pending,
                content=_join((pending.content, turn.content)),
                sources=pending.sources + turn.sources,
                tool_calls=pending.tool_calls + turn.tool_calls,
            )
        else:
            yield pending
            pending = turn
    if pending is not None:
        yield pending


def _join(texts: Iterable[str]) -> str:
    return "\n\n".join(text for text in texts if text)
