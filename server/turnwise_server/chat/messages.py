"""What a client may send as messages, and their one normal form. Pure: no template, no tokens.

The normal form is a `Conversation`: at most one system text and turns whose neighbours differ in role, so that every
chat template can render it. The rules are those people expect from chat APIs: nothing a client sends is dropped
silently, and what cannot be served is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from turnwise_server.errors import RequestError

Role = Literal["user", "assistant"]

SYSTEM_ROLES = ("system", "developer")
TOOL_ROLES = ("tool", "function")


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


@dataclass(frozen=True, slots=True)
class Message:
    """A turn in normal form; `sources` counts the client's messages that were merged into it."""

    role: Role
    content: str
    name: str | None = None
    sources: int = 1


@dataclass(frozen=True, slots=True)
class Conversation:
    """System text and turns. Two neighbouring turns never share a role (unless named speakers differ)."""

    system: str | None
    turns: tuple[Message, ...]


def normalise(messages: Sequence[ClientMessage], *, keep_names: bool = False) -> Conversation:
    """Bring messages into normal form.

    System and developer messages, wherever they stand, become the one system text in their order: instructions
    stay in force and survive truncation. Consecutive messages of one role are merged with a blank line. `name` is
    dropped unless `keep_names` (the template writes names).

    Raises:
        RequestError: no messages, an unknown or unsupported role, or content that is missing or not text.
    """
    if not messages:
        raise RequestError(
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
            param="messages",
            code="empty_array",
        )
    system: list[str] = []
    turns: list[Message] = []
    for index, message in enumerate(messages):
        text = _text(message, f"messages[{index}]")
        role = _role(message.role, f"messages[{index}].role")
        if role is None:
            system.append(text)
        else:
            turns.append(Message(role, text, message.name if keep_names else None))
    return Conversation(_join(system) if system else None, tuple(_merged(turns)))


def _role(role: str, param: str) -> Role | None:
    """Return the turn's role, or None for a system text."""
    if role in SYSTEM_ROLES:
        return None
    if role == "user":
        return "user"
    if role == "assistant":
        return "assistant"
    if role in TOOL_ROLES:
        raise RequestError(
            f"Unsupported value: {param!r} does not support {role!r} with this model: it was not trained to use tools.",
            param=param,
            code="unsupported_value",
        )
    raise RequestError(
        f"Invalid value: {role!r}. Supported values are: 'system', 'developer', 'user' and 'assistant'.",
        param=param,
        code="invalid_value",
    )


def _text(message: ClientMessage, path: str) -> str:
    content = message.content
    if isinstance(content, str):
        return content or message.refusal or ""
    if content is None:
        if message.role == "assistant" and message.refusal is not None:
            return message.refusal
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
        elif (pending.role, pending.name) == (turn.role, turn.name):
            merged = _join((pending.content, turn.content))
            pending = Message(turn.role, merged, turn.name, pending.sources + turn.sources)
        else:
            yield pending
            pending = turn
    if pending is not None:
        yield pending


def _join(texts: Iterable[str]) -> str:
    return "\n\n".join(text for text in texts if text)
