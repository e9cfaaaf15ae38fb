"""What has been said so far, as immutable values and pure functions. It knows neither HTTP nor the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

INTERRUPTED = "interrupted"
"""Finish reason of a reply that the user stopped. OpenAI's own reasons are kept as the server sent them."""
FAILED = "error"
"""Finish reason of a reply that broke off through no wish of the user's."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens a reply took, as the server counted them."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of the model, complete or not."""

    text: str
    finish_reason: str
    model: str = ""
    refusal: str | None = None
    """`stage/category` when the server's policy refused, else None."""
    was_retracted: bool = False
    """Whether other words were shown first, which the server has taken back."""
    usage: Usage | None = None
    dropped_messages: int = 0
    """How many of the oldest messages the server left out to fit the context."""
    tokens_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """What the user said, and the answer; None when there is none (yet)."""

    prompt: str
    reply: Reply | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """A system prompt and turns, oldest first. Only the last turn may lack its reply."""

    system: str | None = None
    turns: tuple[Turn, ...] = field(default=())

    @property
    def last_reply(self) -> Reply | None:
        return self.turns[-1].reply if self.turns else None


def ask(conversation: Conversation, prompt: str) -> Conversation:
    """Add the user's next message. A last turn without an answer is replaced: the model has not seen it."""
    turns = conversation.turns
    if turns and turns[-1].reply is None:
        turns = turns[:-1]
    return replace(conversation, turns=(*turns, Turn(prompt)))


def answer(conversation: Conversation, reply: Reply) -> Conversation:
    """Give the last turn its reply, in place of one it may have had."""
    *earlier, last = conversation.turns
    return replace(conversation, turns=(*earlier, replace(last, reply=reply)))


def unanswer(conversation: Conversation) -> Conversation:
    """Take the last turn's reply away, so that the model can be asked for another."""
    *earlier, last = conversation.turns
    return replace(conversation, turns=(*earlier, replace(last, reply=None)))


def undo(conversation: Conversation) -> Conversation:
    """Take the last turn away, question and answer."""
    return replace(conversation, turns=conversation.turns[:-1])


def to_messages(conversation: Conversation) -> list[Mapping[str, str]]:
    """Return the conversation as OpenAI messages. Partial replies are sent as they are: the user has read them."""
    messages = [{"role": "system", "content": conversation.system}] if conversation.system else []
    for turn in conversation.turns:
        messages.append({"role": "user", "content": turn.prompt})
        if turn.reply is not None:
            messages.append({"role": "assistant", "content": turn.reply.text})
    return list(messages)
