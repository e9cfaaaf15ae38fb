"""Leaves out rows that would count too often: shared prefixes, crowded users. Source: InstructGPT, section 3.2."""

from collections import Counter
from collections.abc import Iterable, Iterator

from turnwise_training.data.rows import AnyRow, Conversation, Row, Text

PREFIX_CHARACTERS = 200
"""From here on a common prefix is a long one."""

PromptKey = tuple[str, str]
"""The system's words and the first characters of the rest."""


def drop_shared_prefixes(rows: Iterable[AnyRow], *, characters: int = PREFIX_CHARACTERS) -> Iterator[AnyRow]:
    """Yield the first row of those whose prompts are equal or share their first `characters`.

    Case and blanks do not count. What the system says is compared whole and does not count as prefix, because many
    prompts may begin with one system message.
    """
    seen: set[PromptKey] = set()
    for row in rows:
        key = prompt_key(row, characters=characters)
        if key not in seen:
            seen.add(key)
            yield row


def prompt_key(row: Row, *, characters: int = PREFIX_CHARACTERS) -> PromptKey:
    """Return what two rows with the same prompt, as `drop_shared_prefixes` sees it, have in common."""
    if isinstance(row, Text):
        return "", _plain(row.text)[:characters]
    # A dialogue's prompt is all that stands before its last message: dialogues that open alike are not alike.
    messages = row.messages[:-1] if isinstance(row, Conversation) else row.prompt
    system = _plain(" ".join(each["content"] for each in messages if each["role"] == "system"))
    rest = " ".join(each["content"] for each in messages if each["role"] != "system")
    return system, _plain(rest)[:characters]


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def cap_users(rows: Iterable[AnyRow], *, most: int) -> Iterator[AnyRow]:
    """Yield the first `most` rows of each user, and every row that names none."""
    counts: Counter[str] = Counter()
    for row in rows:
        user = None if isinstance(row, Text) else row.user
        if user is not None:
            counts[user] += 1
        if user is None or counts[user] <= most:
            yield row
