"""Anthropic's messages and their blocks as the chat layer's messages, and its refusals in the client's words. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, Tag

from turnwise_server.api.chat_completions.request import MAX_PARTS
from turnwise_server.api.sampling_request import Label
from turnwise_server.api.validation import JsonObject, RequestModel, Text, missing_parameter, string_or_array
from turnwise_server.chat.messages import ClientMessage, ContentPart
from turnwise_server.chat.tools import ToolCall
from turnwise_server.errors import RequestError

_MESSAGE = re.compile(r"messages\[(?P<index>\d+)\](?P<field>.*)")
_RESULT_FIELDS = {".role": ".type", ".tool_call_id": ".tool_use_id"}
_TURN_FIELDS = {".tool_calls": ".content"}
"""Fields of messages under the names that they have here."""
_PARAMS = {"response_format": "output_config.format"}


class ResultBlock(RequestModel):
    """A part of what a tool gave back."""

    type: Label
    text: Text | None = None


class RequestBlock(RequestModel):
    """A block of a message: text, a call of a tool, or what it gave back."""

    type: Label
    text: Text | None = None
    id: Label | None = None
    name: Label | None = None
    input: JsonObject | None = None
    tool_use_id: Label | None = None
    content: (
        Annotated[
            Annotated[Text, Tag("string")]
            | Annotated[list[ResultBlock], Field(max_length=MAX_PARTS, fail_fast=True), Tag("array")],
            string_or_array("objects"),
        ]
        | None
    ) = None
    is_error: bool | None = None


Blocks = Annotated[
    Annotated[Text, Tag("string")]
    | Annotated[list[RequestBlock], Field(max_length=MAX_PARTS, fail_fast=True), Tag("array")],
    string_or_array("objects"),
]


class TurnMessage(RequestModel):
    """A message of the conversation so far."""

    role: Literal["user", "assistant", "system"]
    content: Blocks


@dataclass(frozen=True, slots=True)
class Prompt:
    """The messages of a prompt, and where in the request each one comes from."""

    messages: tuple[ClientMessage, ...]
    sources: tuple[str, ...]

    def in_own_words(self, error: RequestError) -> RequestError:
        """Let a refusal that speaks of the chat layer's messages speak of what the client sent."""
        param = error.param or ""
        own = _PARAMS.get(param, param)
        if match := _MESSAGE.fullmatch(param):
            source, name = self.sources[int(match["index"])], match["field"]
            names = _RESULT_FIELDS if ".content[" in source else _TURN_FIELDS
            own = source + names.get(name, name)
        error.message = error.message.replace(param, own)
        error.param = own or None
        return error


def make_prompt(system: str | list[RequestBlock] | None, turns: Sequence[TurnMessage]) -> Prompt:
    """Put together what the model reads.

    Raises:
        RequestError: a block is incomplete, or of a kind that this server does not have.
    """
    found: list[tuple[str, ClientMessage]] = []
    if system is not None:
        found += _messages("system", system, "system", "system")
    for index, turn in enumerate(turns):
        path = f"messages[{index}]"
        found += _messages(turn.role, turn.content, path, f"{path}.content")
    return Prompt(tuple(message for _, message in found), tuple(source for source, _ in found))


def _messages(
    role: str, content: str | list[RequestBlock], source: str, path: str
) -> Iterable[tuple[str, ClientMessage]]:
    """Cut a message where it holds results of tools, which are messages of their own elsewhere."""
    if isinstance(content, str):
        yield source, ClientMessage(role, content)
        return
    parts: list[ContentPart] = []
    calls: list[ToolCall] = []
    for index, block in enumerate(content):
        at = f"{path}[{index}]"
        match role, block.type:
            case _, "text":
                parts.append(_text_part(block, at))
            case "assistant", "tool_use":
                calls.append(_call(block, at))
            case "user", "tool_result":
                if parts:
                    yield source, ClientMessage("user", tuple(parts))
                    parts = []
                yield at, _result(block, at)
            case _:
                raise _unsupported(block.type, f"{at}.type", f"messages with the role {role!r}")
    if parts or calls or not content:
        yield source, ClientMessage(role, tuple(parts), tool_calls=tuple(calls))


def _text_part(block: RequestBlock | ResultBlock, path: str) -> ContentPart:
    if block.text is None:
        raise missing_parameter(f"{path}.text")
    return ContentPart("text", block.text)


def _call(block: RequestBlock, path: str) -> ToolCall:
    if block.id is None:
        raise missing_parameter(f"{path}.id")
    if block.name is None:
        raise missing_parameter(f"{path}.name")
    if block.input is None:
        raise missing_parameter(f"{path}.input")
    return ToolCall(block.id, block.name, json.dumps(block.input, ensure_ascii=False))


def _result(block: RequestBlock, path: str) -> ClientMessage:
    if block.tool_use_id is None:
        raise missing_parameter(f"{path}.tool_use_id")
    content = block.content or ""
    if isinstance(content, str):
        return ClientMessage("tool", content, tool_call_id=block.tool_use_id)
    for index, part in enumerate(content):
        if part.type != "text":
            raise _unsupported(part.type, f"{path}.content[{index}].type", "results of tools")
    parts = tuple(_text_part(part, f"{path}.content[{index}]") for index, part in enumerate(content))
    return ClientMessage("tool", parts, tool_call_id=block.tool_use_id)


def _unsupported(kind: str, param: str, place: str) -> RequestError:
    return RequestError(
        f"Unsupported value: '{param}' does not support {kind!r} in {place}: this model reads text only.",
        param=param,
        code="unsupported_value",
    )
