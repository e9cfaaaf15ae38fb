"""Items of a conversation as the chat layer's messages, and its refusals back in the words of this API. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from turnwise_server.api.responses.items import Item
from turnwise_server.api.responses.tools import flat
from turnwise_server.chat.messages import ClientMessage, ContentPart
from turnwise_server.chat.tools import ToolCall
from turnwise_server.errors import RequestError

_MESSAGE = re.compile(r"messages\[(?P<index>\d+)\](?P<field>.*)")
_FIELDS = {".role": ".type", ".tool_call_id": ".call_id", ".tool_calls": ".type"}
"""Fields of messages that items have under other names. A role can be wrong only where an item has none."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The messages of a prompt, and which parameter of the request each one comes from."""

    messages: tuple[ClientMessage, ...]
    sources: tuple[str, ...]

    def in_own_words(self, error: RequestError) -> RequestError:
        """Let a refusal that speaks of messages and chat parameters speak of what the client sent."""
        param = error.param or ""
        match = _MESSAGE.match(param)
        if match is None:
            own = "input" if param == "messages" else param
        else:
            own = self.sources[int(match["index"])]
            if own.startswith("input"):
                own += _FIELDS.get(match["field"], match["field"])
        error.message = error.message.replace(param, own)
        error.param = own or None
        return flat(error)


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
    match item["type"]:
        case "function_call":
            call = ToolCall(item["call_id"], item["name"], item["arguments"])
            return ClientMessage("assistant", tool_calls=(call,))
        case "function_call_output":
            return ClientMessage("tool", _content(item["output"]), tool_call_id=item["call_id"])
    return ClientMessage(item["role"], _content(item["content"]))


def _content(content: str | list[Item]) -> str | tuple[ContentPart, ...]:
    return content if isinstance(content, str) else tuple(_part(part) for part in content)


def _part(part: Item) -> ContentPart:
    if part["type"] == "refusal":
        return ContentPart("refusal", part["refusal"])
    return ContentPart("text", part["text"])
