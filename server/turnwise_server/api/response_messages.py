"""Items of a conversation as the chat layer's messages, and its refusals back in the words of this API. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from turnwise_server.api.response_items import Item
from turnwise_server.chat.messages import ClientMessage, ContentPart
from turnwise_server.errors import RequestError

_MESSAGE = re.compile(r"messages\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class Prompt:
    """The messages of a prompt, and which parameter of the request each one comes from."""

    messages: tuple[ClientMessage, ...]
    sources: tuple[str, ...]

    def in_own_words(self, error: RequestError) -> RequestError:
        """Let a refusal that speaks of messages speak of what the client sent."""
        param = error.param or ""
        match = _MESSAGE.match(param)
        if match:
            source = self.sources[int(match[1])]
            own = source + param[match.end() :] if source.startswith("input") else source
        elif param == "messages":
            own = "input"
        else:
            return error
        error.message = error.message.replace(param, own)
        error.param = own
        return error


def make_prompt(instructions: str | None, history: Iterable[Item], items: Iterable[Item]) -> Prompt:
    """Put together what the model reads: instructions, the conversation so far, and what is new."""
    messages: list[ClientMessage] = []
    sources: list[str] = []
    if instructions is not None:
        messages.append(ClientMessage("system", instructions))
        sources.append("instructions")
    for item in history:
        messages.append(_message(item))
        sources.append("previous_response_id")
    for index, item in enumerate(items):
        messages.append(_message(item))
        sources.append(f"input[{index}]")
    return Prompt(tuple(messages), tuple(sources))


def _message(item: Item) -> ClientMessage:
    return ClientMessage(item["role"], tuple(_part(part) for part in item["content"]))


def _part(part: Item) -> ContentPart:
    if part["type"] == "refusal":
        return ContentPart("refusal", part["refusal"])
    return ContentPart("text", part["text"])
