"""What was declined earlier in a conversation: it is neither judged again nor shown to the model. Pure.

A client sends its history again with every request, what was refused included. Judged again, one refused message
would have everything after it refused. So a refused message is passed over, and the model reads a placeholder in its
stead: it sees that something was declined and what was answered, and cannot be asked to act on it. A client that makes
up a refusal only hides its own words from the model.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from typing import Final

from turnwise_server.chat.messages import ClientMessage
from turnwise_server.chat.refusal.texts import content_of

WITHHELD: Final = "(This message was declined.)"


def declined_turns(messages: Sequence[ClientMessage], stop_texts: Container[str]) -> frozenset[int]:
    """Return the indices of messages of the assistant that are one of `stop_texts`, and of what they answered."""
    declined: set[int] = set()
    answered: list[int] = []
    for index, message in enumerate(messages):
        if message.role == "user":
            answered.append(index)
        elif message.role == "assistant":
            if content_of(message).strip() in stop_texts:
                declined |= {index, *answered}
            answered = []
    return frozenset(declined)


def withhold(messages: Sequence[ClientMessage], declined: Container[int]) -> tuple[ClientMessage, ...]:
    """Return the conversation as the model may read it."""
    return tuple(
        replace(message, content=WITHHELD) if index in declined and message.role == "user" else message
        for index, message in enumerate(messages)
    )
