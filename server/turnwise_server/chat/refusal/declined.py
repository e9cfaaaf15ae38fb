"""What was declined earlier in a conversation: it is neither judged again nor shown to the model. Pure.

A client sends its history again with every request, what was refused included. Judged again, one refused message
would have everything after it refused. So a refused message is passed over, and the model reads a placeholder in its
stead: it sees that something was declined and what was answered, and cannot be asked to act on it. A client that makes
up a refusal only hides its own words from the model: nothing of such a message is left but the placeholder or the
refusal.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Final

from turnwise_server.chat.messages import ClientMessage
from turnwise_server.chat.refusal.texts import content_of

WITHHELD: Final = "(This message was declined.)"


def declined_turns(messages: Sequence[ClientMessage], stop_texts: Container[str]) -> frozenset[int]:
    """Return the indices of messages of the assistant that are one of `stop_texts`, and of what they answered.

    What they answered is what the user and the tools said since the assistant's answer before. A message that calls
    tools is no answer.
    """
    declined: set[int] = set()
    answered: list[int] = []
    for index, message in enumerate(messages):
        if message.role in ("user", "tool"):
            answered.append(index)
        elif message.role == "assistant" and not message.tool_calls:
            if _answer(message) in stop_texts:
                declined |= {index, *answered}
            answered = []
    return frozenset(declined)


def withhold(messages: Sequence[ClientMessage], declined: Container[int]) -> tuple[ClientMessage, ...]:
    """Return the conversation as the model may read it."""
    return tuple(
        _withheld(message) if index in declined else message for index, message in enumerate(messages)
    )


def _answer(message: ClientMessage) -> str:
    """Return what the assistant said in the end: a stream that takes words back may leave them in the content."""
    return (message.refusal or content_of(message)).strip()


def _withheld(message: ClientMessage) -> ClientMessage:
    """Return what stands for a declined message. Its other fields go: they are not judged, and may say anything."""
    content = _answer(message) if message.role == "assistant" else WITHHELD
    return ClientMessage(message.role, content, tool_call_id=message.tool_call_id)
