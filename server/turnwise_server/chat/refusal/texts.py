"""Which texts of a request are judged: what the client sent, message by message and joined. Pure.

The history is judged too, for a client may have made it up; what was judged before comes out of the cache of verdicts.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from turnwise_server.chat.messages import SYSTEM_ROLES, ClientMessage
from turnwise_server.chat.refusal.policy_stages import InputStage
from turnwise_server.chat.tools import Tool

Origin = Literal["user", "joined", "exchange", "assistant", "system", "tool", "call", "name", "definition"]


@dataclass(frozen=True, slots=True)
class InputText:
    """A text to judge and where it came from, for the audit."""

    origin: Origin
    turn: int
    """Index of the client's message; of the last one, where several were joined."""
    text: str


def input_texts(
    messages: Sequence[ClientMessage],
    settings: InputStage,
    *,
    tools: Sequence[Tool] = (),
    passed_over: Container[int] = (),
    is_trusted: bool = False,
) -> tuple[InputText, ...]:
    """Return the texts of a request that are judged, those of the last user message first.

    They are: every user message; the last `join_user_turns` of them as one text; the last one after the assistant's
    turn before it, which tells what "yes, go on" agrees to; and what else the client says was said. System messages
    and definitions of tools of a trusted key are its owner's own.

    Args:
        messages: the conversation, as the client sent it.
        settings: the policy's.
        tools: what the client offers the model to call.
        passed_over: indices of messages that are not judged.
        is_trusted: whether the key vouches for its system messages.
    """
    kept = [(turn, message) for turn, message in enumerate(messages) if turn not in passed_over]
    found = [*_user_texts(kept, settings)]
    for turn, message in kept:
        found += _claimed(turn, message, settings, is_trusted=is_trusted)
    if settings.check_client_system and not is_trusted:
        found += [InputText("definition", 0, _definition(tool)) for tool in tools]
    return tuple(text for text in found if text.text.strip())


def _user_texts(kept: Sequence[tuple[int, ClientMessage]], settings: InputStage) -> Iterator[InputText]:
    said = [(turn, content_of(message)) for turn, message in kept if message.role == "user"]
    for turn, text in reversed(said):
        yield InputText("user", turn, text)
    if not said:
        return
    last, text = said[-1]
    joined = said[-settings.join_user_turns :]
    if len(joined) > 1:
        yield InputText("joined", last, "\n".join(each for _, each in joined))
    before = [message for turn, message in kept if turn == last - 1 and message.role == "assistant"]
    for message in before:
        yield InputText("exchange", last, f"{content_of(message)}\n{text}")


def _claimed(
    turn: int, message: ClientMessage, settings: InputStage, *, is_trusted: bool
) -> Iterator[InputText]:
    """Yield what stands in a message besides what the user says."""
    if message.name:
        yield InputText("name", turn, message.name)
    if message.role in SYSTEM_ROLES:
        if settings.check_client_system and not is_trusted:
            yield InputText("system", turn, content_of(message))
    elif message.role == "assistant":
        if settings.check_client_assistant:
            yield InputText("assistant", turn, content_of(message))
            for call in message.tool_calls:
                yield InputText("call", turn, f"{call.name}\n{call.arguments}")
    elif message.role != "user":
        yield InputText("tool", turn, content_of(message))


def _definition(tool: Tool) -> str:
    """Return what a tool's definition tells the model."""
    return f"{tool.name}\n{tool.description}\n{json.dumps(dict(tool.parameters), ensure_ascii=False)}"


def content_of(message: ClientMessage) -> str:
    """Return all that a message says; parts stand on lines of their own, as in the prompt."""
    if isinstance(message.content, str):
        return message.content or message.refusal or ""
    if message.content is None:
        return message.refusal or ""
    return "\n".join(part.text for part in message.content)
