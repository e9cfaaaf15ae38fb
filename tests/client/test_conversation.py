"""Turns are added, answered and taken back without changing what was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from turnwise_client import conversation as talk
from turnwise_client.conversation import Conversation, Reply, Turn, Usage
from turnwise_client.errors import UsageError
from turnwise_client.export import to_json, to_markdown, write_export
from turnwise_client.notices import reply_notices, status_line

HELLO = Reply("Hello!", "stop", model="m", usage=Usage(10, 3), tokens_per_second=12.34)
TALK = Conversation(
    system="Be kind.", turns=(Turn("Hi", HELLO), Turn("More?", Reply("Some mo", "interrupted")))
)


def test_messages_hold_the_system_prompt_and_partial_replies() -> None:
    assert [(message["role"], message["content"]) for message in talk.to_messages(TALK)] == [
        ("system", "Be kind."),
        ("user", "Hi"),
        ("assistant", "Hello!"),
        ("user", "More?"),
        ("assistant", "Some mo"),
    ]


def test_a_question_without_an_answer_is_replaced_by_the_next() -> None:
    failed = talk.ask(TALK, "Lost?")

    assert [turn.prompt for turn in talk.ask(failed, "Again").turns] == ["Hi", "More?", "Again"]


def test_answering_again_replaces_the_answer() -> None:
    assert talk.answer(TALK, HELLO).last_reply == HELLO
    assert talk.unanswer(TALK).last_reply is None
    assert talk.undo(TALK).turns == TALK.turns[:1]


def test_json_export_keeps_what_is_known_of_each_reply() -> None:
    messages = json.loads(to_json(TALK))["messages"]

    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user", "assistant"]
    assert messages[2] == {
        "role": "assistant",
        "content": "Hello!",
        "model": "m",
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 10, "completion_tokens": 3},
    }


def test_markdown_export_marks_replies_that_were_cut() -> None:
    assert to_markdown(TALK) == (
        "# Conversation\n\n## System\n\nBe kind.\n\n## User\n\nHi\n\n## Assistant\n\nHello!\n\n"
        "## User\n\nMore?\n\n## Assistant (interrupted)\n\nSome mo\n"
    )


def test_an_export_never_overwrites_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "talk.md"
    write_export(TALK, "md", path)

    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(UsageError, match="exists already"):
        write_export(TALK, "json", path)
    with pytest.raises(UsageError, match="cannot write"):
        write_export(TALK, "json", tmp_path / "no such folder" / "talk.json")
    with pytest.raises(UsageError, match="md, json"):
        write_export(TALK, "pdf", tmp_path / "talk.pdf")


@pytest.mark.parametrize(
    ("reply", "notices"),
    [
        (HELLO, []),
        (Reply("x", "length"), ["cut by the length limit"]),
        (Reply("x", "content_filter"), ["cut by the server's content filter"]),
        (Reply("x", "interrupted"), ["interrupted"]),
        (Reply("x", "error"), ["incomplete"]),
        (Reply("", "stop"), ["the reply is empty"]),
        (Reply("No.", "stop", refusal="input/weapons"), ["refused by the server's policy: input/weapons"]),
        (
            Reply("No.", "content_filter", refusal="output/weapons", was_retracted=True),
            ["refused by the server's policy: output/weapons; what it said before is taken back"],
        ),
        (
            Reply("x", "length", dropped_messages=4),
            [
                "4 earlier messages no longer fit the context: the model did not see them",
                "cut by the length limit",
            ],
        ),
    ],
)
def test_notices_say_what_the_text_does_not(reply: Reply, notices: list[str]) -> None:
    assert reply_notices(reply) == notices


def test_the_status_line_counts_tokens_of_the_context() -> None:
    assert (
        status_line(model="m", context_length=2048, reply=HELLO)
        == "m · 13 of 2,048 tokens · 12.3 tok/s · stop"
    )
    assert status_line(model="m", context_length=None, reply=HELLO) == "m · 13 tokens · 12.3 tok/s · stop"
    assert status_line(model="m", context_length=2048, reply=None) == "m · 2,048 tokens of context"
    assert (
        status_line(model="", context_length=None, reply=Reply("x", "interrupted"))
        == "no model yet · interrupted"
    )
