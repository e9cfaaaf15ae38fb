"""The native rows of docs/data-formats.md: parsed from JSON objects and written back as them."""

import sys
from collections.abc import Mapping

from turnwise_training.data.messages import read_answer, read_message, read_prompt
from turnwise_training.data.rows import Completion, Conversation, Message, Prompt, Ranking, Row, Text, Vote
from turnwise_training.errors import DataError

Fields = Mapping[str, object]
"""The columns of a row that are not null."""

LARGEST = sys.float_info.max


class UnusableRow(Exception):  # noqa: N818 - no fault: the row is dropped and counted
    """A well-formed row that nothing can be learnt from; the message is the reason it is counted under."""


def parse_text(fields: Fields, where: str) -> Text:
    """Read `{"text": ...}`."""
    text = fields["text"]
    if not isinstance(text, str):
        raise DataError(f"expected a string 'text', found {type(text).__name__}")
    if not text or text.isspace():
        raise UnusableRow("empty text")
    return Text(text, where=where)


def parse_conversation(fields: Fields, where: str) -> Conversation:
    """Read `{"messages": [...]}` with its optional `weight`, `id`, `user` and each message's `train`."""
    values = fields["messages"]
    if not isinstance(values, list):
        raise DataError(f"expected a list 'messages', found {type(values).__name__}")
    messages = tuple(read_message(value, number) for number, value in enumerate(values))
    return conversation(
        messages,
        weight=read_number(fields, "weight", default=1.0),
        train=_train_flags(values, messages),
        id=read_name(fields, "id"),
        user=read_name(fields, "user"),
        where=where,
    )


def conversation(
    messages: tuple[Message, ...],
    *,
    weight: float = 1.0,
    train: tuple[bool, ...] | None = None,
    id: str | None = None,  # noqa: A002 - the column's name
    user: str | None = None,
    where: str = "",
) -> Conversation:
    """Return a conversation that can be trained on, or raise DataError."""
    roles = {message["role"] for message in messages}
    if not roles >= {"user", "assistant"}:
        raise DataError(
            f"a conversation needs a user and an assistant message; its roles are {sorted(roles)}"
        )
    if train is not None and not any(train):
        raise DataError("every assistant message has 'train': false, which leaves no token to train on")
    return Conversation(messages, weight, train, id, user, where)


def _train_flags(values: list[object], messages: tuple[Message, ...]) -> tuple[bool, ...] | None:
    """Return the flags where a message has `train` (or OpenAI's `weight` of 0 or 1), else None."""
    marks = [
        value.get("train", value.get("weight", True)) if isinstance(value, dict) else True for value in values
    ]
    if all(mark is True for mark in marks):
        return None
    if any(mark not in (False, True) for mark in marks):
        raise DataError(f"'train' of a message is true or false; found {marks!r}")
    flags = tuple(
        bool(mark) and message["role"] == "assistant" for mark, message in zip(marks, messages, strict=True)
    )
    replies = tuple(message["role"] == "assistant" for message in messages)
    return None if flags == replies else flags


def parse_ranking(fields: Fields, where: str) -> Ranking:
    """Read `{"prompt": [...], "completions": [{"content", "rank", "policy"?}, ...]}`."""
    values = fields["completions"]
    if not isinstance(values, list):
        raise DataError(f"expected a list 'completions', found {type(values).__name__}")
    completions = tuple(_parse_completion(value, number) for number, value in enumerate(values))
    return ranking(read_prompt(fields["prompt"]), completions, fields, where)


def _parse_completion(value: object, number: int) -> Completion:
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise DataError(f"completion {number} needs a string 'content'")
    rank, policy = value.get("rank"), value.get("policy")
    if not isinstance(rank, int) or isinstance(rank, bool):
        raise DataError(f"completion {number} needs an integer 'rank', 1 for the best; it has {rank!r}")
    return Completion(value["content"], rank, None if policy is None else str(policy))


def ranking(
    prompt: tuple[Message, ...], completions: tuple[Completion, ...], fields: Fields, where: str
) -> Ranking:
    """Return a ranking of at least two answers with the optional columns of `fields`."""
    if len(completions) < 2:
        raise DataError(f"a ranking needs two completions; it has {len(completions)}")
    return Ranking(
        prompt,
        completions,
        labeler=read_name(fields, "labeler"),
        margin=read_number(fields, "margin", default=0.0),
        id=read_name(fields, "id"),
        user=read_name(fields, "user"),
        where=where,
    )


def parse_vote(fields: Fields, where: str) -> Vote:
    """Read `{"prompt": [...], "completion": [...], "label": true}`."""
    label = fields["label"]
    if label not in (False, True):
        raise DataError(f"expected 'label' true or false, found {label!r}")
    answer = read_answer(fields["completion"])
    names = read_name(fields, "id"), read_name(fields, "user")
    return Vote(read_prompt(fields["prompt"]), answer, bool(label), *names, where=where)


def parse_prompt(fields: Fields, where: str) -> Prompt:
    """Read `{"prompt": [...]}`; every other column is kept for the reward functions."""
    columns = {key: value for key, value in fields.items() if key != "prompt"}
    return Prompt(read_prompt(fields["prompt"]), columns, where)


def read_number(fields: Fields, key: str, *, default: float) -> float:
    """Return a finite number of at least 0, or `default` if the row has none."""
    value = fields.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LARGEST:
        raise DataError(f"{key!r} is a number of at least 0; found {value!r}")
    return float(value)


def read_name(fields: Fields, key: str) -> str | None:
    """Return an identifier as a string, or None if the row has none."""
    value = fields.get(key)
    if value is not None and not isinstance(value, str | int):
        raise DataError(f"{key!r} is a string or an integer; found {value!r:.60}")
    return None if value is None else str(value)


def to_json(row: Row) -> dict[str, object]:
    """Return the native JSON object of a row; parsing it gives an equal row."""
    if isinstance(row, Text):
        return {"text": row.text}
    if isinstance(row, Prompt):
        return {"prompt": list(row.prompt), **row.columns}
    if isinstance(row, Conversation):
        body: dict[str, object] = {"messages": _marked(row)}
        extra: dict[str, object] = {"weight": None if row.weight == 1 else row.weight}
    elif isinstance(row, Vote):
        answer = [{"role": "assistant", "content": row.completion}]
        body = {"prompt": list(row.prompt), "completion": answer, "label": row.label}
        extra = {}
    else:
        body = {"prompt": list(row.prompt), "completions": [_completion(each) for each in row.completions]}
        extra = {"labeler": row.labeler, "margin": row.margin or None}
    extra |= {"id": row.id, "user": row.user}
    return body | {key: value for key, value in extra.items() if value is not None}


def _marked(row: Conversation) -> list[dict[str, object]]:
    """Return the messages, those of the assistant that are not trained on marked so."""
    return [
        {**message} if message["role"] != "assistant" or row.trains(number) else {**message, "train": False}
        for number, message in enumerate(row.messages)
    ]


def _completion(answer: Completion) -> dict[str, object]:
    body: dict[str, object] = {"content": answer.content, "rank": answer.rank}
    return body if answer.policy is None else {**body, "policy": answer.policy}
