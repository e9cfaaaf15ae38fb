"""Which texts of a request are judged: what the client sent, message by message and joined. Pure.

The history is judged too, for a client may have made it up; what was judged before comes out of the cache of verdicts.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from pydantic_core import from_json

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

    They are: every user message; the user's last `join_user_turns` turns as one text; the last one after the
    assistant's turn before it, which tells what "yes, go on" agrees to; and what else the client says was said.
    Messages that the model reads as one turn, or as its one system text, are judged as one text too. System messages
    and definitions of tools of a trusted key are its owner's own.

    Args:
        messages: the conversation, as the client sent it.
        settings: the policy's.
        tools: what the client offers the model to call.
        passed_over: indices of messages that are not judged.
        is_trusted: whether the key vouches for its system messages.
    """
    kept = [(turn, message) for turn, message in enumerate(messages) if turn not in passed_over]
    judges_system = settings.check_client_system and not is_trusted
    found = [
        InputText("user", turn, content_of(each)) for turn, each in reversed(kept) if each.role == "user"
    ]
    found += _joined(_turns(messages, passed_over), settings)
    if judges_system:
        found += _as_one([(turn, each) for turn, each in kept if each.role in SYSTEM_ROLES])
    for turn, message in kept:
        found += _claimed(turn, message, settings, judges_system=judges_system)
    if judges_system:
        found += [InputText("definition", 0, _definition(tool)) for tool in tools]
    return tuple(text for text in found if text.text.strip())


_Turn = tuple[str, list[tuple[int, ClientMessage]]]
"""A role, and the messages that the model reads as one turn of it, with their indices."""


def _turns(messages: Sequence[ClientMessage], passed_over: Container[int]) -> list[_Turn]:
    """Return the turns of the conversation without its system messages; the role of one passed over is ""."""
    said = [(turn, message) for turn, message in enumerate(messages) if message.role not in SYSTEM_ROLES]
    runs = groupby(said, key=lambda each: "" if each[0] in passed_over else each[1].role)
    return [(role, list(run)) for role, run in runs]


def _joined(turns: Sequence[_Turn], settings: InputStage) -> Iterator[InputText]:
    """Yield what messages say together."""
    for role, said in turns:
        if role == "user" or (role == "assistant" and settings.check_client_assistant):
            yield from _as_one(said)
    spoken = [at for at, (role, _) in enumerate(turns) if role == "user"]
    if not spoken:
        return
    last = spoken[-1]
    index = turns[last][1][-1][0]
    if len(spoken) > 1:
        texts = [_text(turns[at][1]) for at in spoken[-settings.join_user_turns :]]
        yield InputText("joined", index, "\n".join(texts))
    if last > 0 and turns[last - 1][0] == "assistant":
        yield InputText("exchange", index, f"{_text(turns[last - 1][1])}\n{_text(turns[last][1])}")


def _as_one(said: Sequence[tuple[int, ClientMessage]]) -> Iterator[InputText]:
    """Yield messages as one text; one message alone is judged elsewhere."""
    if len(said) > 1:
        yield InputText("joined", said[-1][0], _text(said))


def _text(said: Sequence[tuple[int, ClientMessage]]) -> str:
    return "\n".join(content_of(message) for _, message in said)


def _claimed(
    turn: int, message: ClientMessage, settings: InputStage, *, judges_system: bool
) -> Iterator[InputText]:
    """Yield what stands in a message besides what the user says."""
    if message.name:
        yield InputText("name", turn, message.name)
    if message.role in SYSTEM_ROLES:
        if judges_system:
            yield InputText("system", turn, content_of(message))
    elif message.role == "assistant":
        if settings.check_client_assistant:
            yield InputText("assistant", turn, content_of(message))
            for call in message.tool_calls:
                yield InputText("call", turn, f"{call.name}\n{_as_written(call.arguments)}")
                yield InputText("call", turn, call.id)
    elif message.role != "user":
        yield InputText("tool", turn, content_of(message))


def _as_written(arguments: str) -> str:
    """Return arguments without JSON's escapes of characters, as templates write them."""
    if "\\u" not in arguments:
        return arguments
    try:
        return json.dumps(from_json(arguments), ensure_ascii=False)
    except ValueError:
        return arguments


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
