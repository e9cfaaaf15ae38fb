"""Which texts of a request are judged: what the client sent, message by message and joined. Pure.

The history is judged too, for a client may have made it up; what was judged before comes out of the cache of verdicts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from turnwise_server.chat.messages import SYSTEM_ROLES, ClientMessage
from turnwise_server.chat.refusal.policy_stages import InputStage

Origin = Literal["user", "joined", "exchange", "assistant", "system", "tool", "call", "name"]


@dataclass(frozen=True, slots=True)
class InputText:
    """A text to judge and where it came from, for the audit."""

    origin: Origin
    turn: int
    """Index of the client's message; of the last one, where several were joined."""
    text: str


def input_texts(
    messages: Sequence[ClientMessage], settings: InputStage, *, is_trusted: bool = False
) -> tuple[InputText, ...]:
    """Return the texts of a request that are judged, those of the last user message first.

    They are: every user message; the last `join_user_turns` of them as one text; the last one after the assistant's
    turn before it, which tells what "yes, go on" agrees to; and what else the client says was said. System messages
    of a trusted key are its owner's own.
    """
    found = [*_user_texts(messages, settings)]
    for turn, message in enumerate(messages):
        found += _claimed(turn, message, settings, is_trusted=is_trusted)
    return tuple(text for text in found if text.text.strip())


def _user_texts(messages: Sequence[ClientMessage], settings: InputStage) -> Iterator[InputText]:
    turns = [turn for turn, message in enumerate(messages) if message.role == "user"]
    for turn in reversed(turns):
        yield InputText("user", turn, _content(messages[turn]))
    if not turns:
        return
    last = turns[-1]
    joined = turns[-settings.join_user_turns :]
    if len(joined) > 1:
        yield InputText("joined", last, "\n".join(_content(messages[turn]) for turn in joined))
    if last and messages[last - 1].role == "assistant":
        yield InputText("exchange", last, f"{_content(messages[last - 1])}\n{_content(messages[last])}")


def _claimed(
    turn: int, message: ClientMessage, settings: InputStage, *, is_trusted: bool
) -> Iterator[InputText]:
    """Yield what stands in a message besides what the user says."""
    if message.name:
        yield InputText("name", turn, message.name)
    if message.role in SYSTEM_ROLES:
        if settings.check_client_system and not is_trusted:
            yield InputText("system", turn, _content(message))
    elif message.role == "assistant":
        if settings.check_client_assistant:
            yield InputText("assistant", turn, _content(message))
            for call in message.tool_calls:
                yield InputText("call", turn, f"{call.name}\n{call.arguments}")
    elif message.role != "user":
        yield InputText("tool", turn, _content(message))


def _content(message: ClientMessage) -> str:
    """Return all that a message says; parts stand on lines of their own, as in the prompt."""
    if isinstance(message.content, str):
        return message.content or message.refusal or ""
    if message.content is None:
        return message.refusal or ""
    return "\n".join(part.text for part in message.content)
