"""Reads messages from the shapes people keep them in: lists, parts, plain strings and transcripts."""

import re

from turnwise_training.data.rows import ROLES, Message, Role
from turnwise_training.errors import DataError

SYNONYMS: dict[str, Role] = {
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "developer": "system",
}
"""Other formats' words for the roles."""

_SPEAKER = re.compile(r"\n\n(Human|Assistant):")


def read_messages(value: object) -> tuple[Message, ...]:
    """Return the messages of a list of `role` and `content`, of a transcript, or of one user's words.

    A transcript is a string that begins with a blank line and `Human:`, as in hh-rlhf. Raises DataError that says
    which message is wrong.
    """
    if isinstance(value, str):
        return _read_transcript(value) if value.startswith("\n\nHuman:") else user_says(value)
    if not isinstance(value, list) or not value:
        raise DataError(f"expected messages, found {value!r:.60}")
    return tuple(read_message(message, number) for number, message in enumerate(value))


def read_message(
    value: object, number: int, *, role_key: str = "role", content_key: str = "content"
) -> Message:
    """Return one message; `number` is for the error."""
    said = value.get(role_key) if isinstance(value, dict) else None
    role = SYNONYMS.get(said, said) if isinstance(said, str) else said
    if not isinstance(value, dict) or role not in ROLES:
        raise DataError(f"message {number} needs a {role_key!r} of {', '.join(ROLES)}; it has {said!r}")
    return {"role": role, "content": _content(value.get(content_key), number, content_key)}


def _content(value: object, number: int, key: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):  # OpenAI's content parts
        texts = [part.get("text") for part in value if isinstance(part, dict) and part.get("type") == "text"]
        if len(texts) == len(value) and all(isinstance(text, str) for text in texts):
            return "".join(str(text) for text in texts)
    raise DataError(f"message {number} needs a string {key!r}; only text can be trained on")


def user_says(content: str) -> tuple[Message, ...]:
    """Return a prompt of one user message."""
    return ({"role": "user", "content": content},)


def read_prompt(value: object) -> tuple[Message, ...]:
    """Return messages that an answer may follow: the last is not the assistant's."""
    messages = read_messages(value)
    if isinstance(value, str) and messages[-1] == {"role": "assistant", "content": ""}:
        messages = messages[:-1]  # a transcript's bare 'Assistant:', which waits for the answer
    if messages[-1]["role"] == "assistant":
        raise DataError("a prompt must not end with the assistant's message")
    return messages


def read_answer(value: object) -> str:
    """Return the text of a completion: a string, one assistant message, or a list that holds one."""
    if isinstance(value, str):
        return value
    message = value[0] if isinstance(value, list) and len(value) == 1 else value
    if not isinstance(message, dict):
        raise DataError(f"expected one answer of the assistant, found {value!r:.60}")
    parsed = read_message(message, 0)
    if parsed["role"] != "assistant":
        raise DataError(f"expected an answer of the assistant, found a message of the {parsed['role']}")
    return parsed["content"]


def _read_transcript(text: str) -> tuple[Message, ...]:
    parts = _SPEAKER.split(text)
    if parts[0]:
        raise DataError("a transcript must begin with 'Human:'")
    speakers, texts = parts[1::2], parts[2::2]
    return tuple(
        {"role": "user" if speaker == "Human" else "assistant", "content": said.strip()}
        for speaker, said in zip(speakers, texts, strict=True)
    )
