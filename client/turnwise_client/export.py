"""Write a conversation to a file, as JSON or as markdown. Rendering is pure; only `write_export` touches the disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from turnwise_client.conversation import Conversation, Reply, Turn
from turnwise_client.errors import UsageError

FORMAT_VERSION = 1


def _json_reply(reply: Reply) -> dict[str, object]:
    message: dict[str, object] = {
        "role": "assistant",
        "content": reply.text,
        "model": reply.model,
        "finish_reason": reply.finish_reason,
    }
    if reply.refusal is not None:
        message["refusal"] = reply.refusal
    if reply.usage is not None:
        message["usage"] = {
            "prompt_tokens": reply.usage.prompt_tokens,
            "completion_tokens": reply.usage.completion_tokens,
        }
    return message


def to_json(conversation: Conversation) -> str:
    """Return the conversation as a JSON document of OpenAI messages, with what is known about each reply."""
    messages: list[dict[str, object]] = []
    if conversation.system:
        messages.append({"role": "system", "content": conversation.system})
    for turn in conversation.turns:
        messages.append({"role": "user", "content": turn.prompt})
        if turn.reply is not None:
            messages.append(_json_reply(turn.reply))
    document = {"type": "conversation", "format": FORMAT_VERSION, "messages": messages}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _markdown_turn(turn: Turn) -> list[str]:
    sections = [f"## User\n\n{turn.prompt}"]
    if turn.reply is not None:
        ending = "" if turn.reply.finish_reason == "stop" else f" ({turn.reply.finish_reason})"
        sections.append(f"## Assistant{ending}\n\n{turn.reply.text}")
    return sections


def to_markdown(conversation: Conversation) -> str:
    """Return the conversation as markdown, a heading for each message; the texts are left exactly as they are."""
    sections = ["# Conversation"]
    if conversation.system:
        sections.append(f"## System\n\n{conversation.system}")
    for turn in conversation.turns:
        sections.extend(_markdown_turn(turn))
    return "\n\n".join(sections) + "\n"


EXPORT_FORMATS: Mapping[str, Callable[[Conversation], str]] = {"md": to_markdown, "json": to_json}


def write_export(conversation: Conversation, form: str, path: Path) -> None:
    """Write the conversation to a new file, readable by its owner alone.

    Raises:
        UsageError: the format is unknown, the file exists already, or it cannot be written.
    """
    render = EXPORT_FORMATS.get(form)
    if render is None:
        raise UsageError(f"there is no export format {form!r}: choose from {', '.join(EXPORT_FORMATS)}")
    text = render(conversation).encode("utf-8", "replace")
    try:
        path.touch(mode=0o600, exist_ok=False)
        path.write_bytes(text)
    except FileExistsError as error:
        raise UsageError(f"{str(path)!r} exists already: choose another name") from error
    except OSError as error:
        raise UsageError(f"cannot write {str(path)!r}: {error.strerror}") from error
