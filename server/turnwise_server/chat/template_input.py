"""Writes turns and tools as chat templates take them, so that no text in them becomes a control token."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic_core import from_json
from transformers.utils.chat_template_utils import mark_control_tokens

from turnwise_server.chat.call_form import CallSpelling
from turnwise_server.chat.messages import Conversation, Message
from turnwise_server.chat.tools import Tool, ToolCall

_SHORT_ID_LENGTH = 9
_NO_ARGUMENTS = {"type": "object", "properties": {}}

Json = TypeVar("Json")


class KeyMarker:
    """Marks control tokens in the keys of objects, as transformers marks them in values alone.

    Property names of a tool's parameters and of a call's arguments are keys, and anybody may choose them.
    """

    def __init__(self, tokens: Iterable[str]) -> None:
        names = sorted((token for token in tokens if not token.isspace()), key=len, reverse=True)
        self._tokens = re.compile("|".join(map(re.escape, names)) or "(?!)")

    def mark(self, value: Json) -> Json:
        """Return a copy with the control tokens in all its keys marked."""
        return self._marked(value)  # type: ignore[no-any-return]

    def _marked(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {mark_control_tokens(key, self._tokens): self._marked(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._marked(item) for item in value]
        return value


def template_tool(tool: Tool) -> dict[str, Any]:
    """Return a tool as templates take it."""
    parameters = dict(tool.parameters) or _NO_ARGUMENTS
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}


def template_message(turn: Message, spelling: CallSpelling | None) -> dict[str, Any]:
    """Return a turn as templates take it; `spelling` is that of a template that knows tools."""
    message: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.name:
        message["name"] = turn.name
    if spelling is None:
        return message
    if turn.tool_call_id is not None:
        message["tool_call_id"] = _spelled_id(turn.tool_call_id, spelling)
    if turn.tool_calls:
        message["tool_calls"] = [_template_call(call, spelling) for call in turn.tool_calls]
        if not turn.content and not spelling.has_content:
            del message["content"]
    return message


def tool_conversation(word: str) -> Conversation:
    """Return a conversation with `word` wherever the text of tools, calls and results can stand."""
    schema = {"type": "object", "properties": {word: {"type": "string", "enum": [word]}}, "required": [word]}
    call = ToolCall("call_" + "a" * 24, "f", json.dumps({word: [word]}))
    turns = (
        Message("user", "x"),
        Message("assistant", "", tool_calls=(call,)),
        Message("tool", word, "f", tool_call_id=call.id),
    )
    return Conversation(None, turns, (Tool("f", word, schema),))


def _template_call(call: ToolCall, spelling: CallSpelling) -> dict[str, Any]:
    arguments = _arguments(call.arguments, spelling)
    function = {"name": call.name, "arguments": arguments}
    return {"id": _spelled_id(call.id, spelling), "type": "function", "function": function}


def _spelled_id(call_id: str, spelling: CallSpelling) -> str:
    """Return an id as the template takes it: some want nine characters exactly, others nine at the least."""
    if not spelling.has_short_ids and len(call_id) >= _SHORT_ID_LENGTH:
        return call_id
    return hashlib.sha256(call_id.encode()).hexdigest()[:_SHORT_ID_LENGTH]


def _arguments(text: str, spelling: CallSpelling) -> Any:
    """Return arguments as an object where the template wants one; what is no JSON object stays text."""
    text = text.strip() or "{}"
    if spelling.has_text_arguments:
        return text
    try:
        content = from_json(text, allow_inf_nan=False)
    except ValueError:
        return text
    return content if isinstance(content, dict) else text
