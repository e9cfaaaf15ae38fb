"""Every format of docs/data-formats.md becomes native rows; what cannot be used is dropped with its reason."""

import json
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnwise_training.data import (
    Completion,
    Conversation,
    Message,
    Prompt,
    Ranking,
    Row,
    Tally,
    Text,
    Vote,
    contents,
    is_held_out,
    only,
    read_rows,
    to_json,
)
from turnwise_training.data.formats import FORMATS, Format, convert_row
from turnwise_training.data.native import UnusableRow
from turnwise_training.errors import DataError

WriteSource = Callable[[str, list[object]], Path]

HI: Message = {"role": "user", "content": "Hi"}
HELLO: Message = {"role": "assistant", "content": "Hello."}
TALK = Conversation((HI, HELLO))
PAIR = Ranking((HI,), (Completion("Hello.", 1), Completion("What?", 2)))


def read(value: object) -> list[Row]:
    """Return the rows of one JSON value."""
    return convert_row(value, "here")[1]


EXAMPLES: list[tuple[str, dict[str, Any], list[Row]]] = [
    ("native text", {"text": "Once."}, [Text("Once.")]),
    ("native conversations", {"messages": [HI, HELLO], "source": "x"}, [TALK]),
    (
        "native rankings",
        {
            "prompt": [HI],
            "completions": [{"content": "a", "rank": 1, "policy": "sft"}, {"content": "b", "rank": 1}],
            "labeler": 7,
            "margin": 0.5,
        },
        [Ranking((HI,), (Completion("a", 1, "sft"), Completion("b", 1)), labeler="7", margin=0.5)],
    ),
    ("native prompts", {"prompt": [HI], "answer": 4}, [Prompt((HI,), {"answer": 4})]),
    (
        "native thumbs",
        {"prompt": [HI], "completion": [HELLO], "label": False, "user": "ann"},
        [Vote((HI,), "Hello.", label=False, user="ann")],
    ),
    ("prompt and completion", {"prompt": "Hi", "completion": "Hello."}, [TALK]),
    (
        "prompt and completion",
        {"prompt": [HI, HELLO, HI], "completion": [HELLO]},
        [Conversation((HI, HELLO, HI, HELLO), train=(False, False, False, True))],
    ),
    ("prompt, chosen and rejected", {"prompt": "Hi", "chosen": "Hello.", "rejected": "What?"}, [PAIR]),
    (
        "prompt, chosen and rejected",
        {"prompt": "Hi", "chosen": [HI, HELLO], "rejected": [HI, {"role": "assistant", "content": "What?"}]},
        [PAIR],
    ),
    (
        "prompt, chosen and rejected",
        {"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": "Hello.", "rejected": "What?"},
        [PAIR],
    ),
    (
        "chosen and rejected dialogues",
        {"chosen": [HI, HELLO], "rejected": [HI, {"role": "assistant", "content": "What?"}]},
        [PAIR],
    ),
    (
        "chosen and rejected dialogues",
        {
            "chosen": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Hi\n\nAssistant: Hello.",
            "rejected": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Hi\n\nAssistant: What?",
        },
        [Ranking((HI, HELLO, HI), PAIR.completions)],
    ),
    (
        "prompt, responses and ranking",
        {"prompt": [HI], "responses": ["worst", "best", "good"], "ranking": [1, 2, 0]},
        [Ranking((HI,), (Completion("best", 1), Completion("good", 2), Completion("worst", 3)))],
    ),
    (
        "prompt, response and reward",
        {"prompt": [HI], "response": "Hello.", "reward": 1.0},
        [Vote((HI,), "Hello.", label=True)],
    ),
    (
        "OpenAI preference",
        {
            "input": {
                "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
                "tools": [],
            },
            "preferred_output": [HELLO],
            "non_preferred_output": [{"role": "assistant", "content": "What?"}],
        },
        [PAIR],
    ),
    (
        "ShareGPT",
        {"id": "a1", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]},
        [Conversation((HI, HELLO), id="a1")],
    ),
    ("Alpaca", {"instruction": "Hi", "input": "", "output": "Hello."}, [TALK]),
    (
        "Alpaca",
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        [Conversation(({"role": "user", "content": "Add.\n\n1 2"}, {"role": "assistant", "content": "3"}))],
    ),
    ("Dolly", {"instruction": "Hi", "context": "", "response": "Hello.", "category": "x"}, [TALK]),
    ("question and answer", {"question": "Hi", "answer": "Hello.", "user": None}, [TALK]),
    (
        "summarize_from_feedback",
        {
            "info": {"post": "A long day. ", "title": "Day"},
            "summaries": [{"text": " Tired."}, {"text": " Long."}],
            "choice": 1,
            "worker": "w1",
        },
        [
            Ranking(
                ({"role": "user", "content": "Summarize this post.\n\nA long day."},),
                (Completion("Long.", 1), Completion("Tired.", 2)),
                labeler="w1",
            )
        ],
    ),
    (
        "OASST trees",
        {
            "message_tree_id": "t",
            "prompt": {
                "text": "Hi",
                "role": "prompter",
                "replies": [
                    {"text": "What?", "role": "assistant", "rank": 2, "replies": []},
                    {
                        "text": "Hello.",
                        "role": "assistant",
                        "rank": 0,
                        "replies": [
                            {
                                "text": "Hi",
                                "role": "prompter",
                                "rank": 0,
                                "replies": [
                                    {"text": "b", "role": "assistant", "rank": 1},
                                    {"text": "a", "role": "assistant", "rank": 0},
                                ],
                            },
                            {"text": "Bye", "role": "prompter", "rank": 1, "replies": []},
                        ],
                    },
                    {"text": "Yes?", "role": "assistant", "rank": 1},
                    {"text": "unread", "role": "assistant", "rank": None},
                ],
            },
        },
        [
            Ranking((HI,), (Completion("Hello.", 1), Completion("Yes?", 2), Completion("What?", 3))),
            Ranking((HI, HELLO, HI), (Completion("a", 1), Completion("b", 2))),
        ],
    ),
]


@pytest.mark.parametrize(("name", "value", "rows"), EXAMPLES, ids=[name for name, _, _ in EXAMPLES])
def test_each_format_is_recognised_by_its_keys(name: str, value: dict[str, Any], rows: list[Row]) -> None:
    format_, converted = convert_row(value, "here")
    assert (format_.name, converted) == (name, rows)
    assert all(row.where == "here" for row in converted)


def test_every_format_has_an_example_here_and_a_place_in_the_documentation() -> None:
    documented = (Path(__file__).parents[2] / "docs/data-formats.md").read_text()
    for format_ in FORMATS:
        if format_.name != "OASST messages":  # refused
            assert format_.name in {name for name, _, _ in EXAMPLES}
            assert f"`{format_.name}`" in documented


def test_transcripts_come_to_the_same_rows_as_lists_of_messages() -> None:
    words = [HI, HELLO, HI, HELLO]
    transcript = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Hi\n\nAssistant: Hello."
    assert read({"chosen": transcript, "rejected": transcript + " Yes."}) == read(
        {"chosen": words, "rejected": [*words[:3], {"role": "assistant", "content": "Hello. Yes."}]}
    )


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"text": " \n"}, "empty text"),
        ({"prompt": "Hi", "chosen": "Hello.", "rejected": "Hello."}, "chosen and rejected are equal"),
        (
            {
                "chosen": "\n\nHuman: Hi\n\nAssistant: A",
                "rejected": "\n\nHuman: Hi\n\nAssistant: B\n\nHuman: C",
            },
            "the two dialogues part before their last message",
        ),
        (
            {"message_tree_id": "t", "prompt": {"text": "Hi", "role": "prompter", "replies": []}},
            "no message of the tree has two ranked replies",
        ),
        ({"info": {"article": "News."}, "summaries": [{}, {}], "choice": 0}, "an article instead of a post"),
    ],
)
def test_what_cannot_be_used_is_dropped_and_counted_with_its_reason(
    write_source: WriteSource, value: object, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_source("rows", [value, {"text": "Once."}])
    tally = Tally()
    with caplog.at_level(logging.INFO):
        assert list(read_rows(path, tally=tally)) == [Text("Once.")]
    assert tally.dropped == {reason: 1}
    assert f"dropped 1 rows: {reason}" in caplog.text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"title": "x"}, "no known format has the keys ['title']"),
        ({"text": 5}, "expected a string 'text'"),
        ({"message_tree_id": "t", "parent_id": None, "text": "x"}, "single OASST messages cannot be read"),
        ({"messages": "x"}, "expected a list 'messages'"),
        ({"messages": [HI, HELLO], "weight": -1}, "'weight' is a number of at least 0; found -1"),
        ({"messages": [HI, HELLO], "weight": 10**400}, "'weight' is a number of at least 0"),
        ({"messages": [HI, HELLO], "weight": float("nan")}, "'weight' is a number of at least 0"),
        ({"messages": [HI, HELLO], "user": ["x"]}, "'user' is a string or an integer"),
        ({"messages": [HI, {**HELLO, "train": "no"}]}, "'train' of a message is true or false"),
        ({"messages": [HI, {**HELLO, "train": False}]}, "no token to train on"),
        ({"messages": [HI, {"role": "tool", "content": "x"}, HELLO]}, "message 1 needs a 'role'"),
        ({"messages": [{**HI, "content": [{"type": "image_url"}]}, HELLO]}, "only text can be trained on"),
        ({"prompt": [HI, HELLO]}, "must not end with the assistant's message"),
        ({"prompt": []}, "expected messages, found []"),
        ({"prompt": [HI], "completions": []}, "needs two completions; it has 0"),
        ({"prompt": [HI], "completions": [{"content": "x", "rank": "1"}]}, "needs an integer 'rank'"),
        ({"prompt": [HI], "completions": [{"rank": 1}]}, "needs a string 'content'"),
        ({"prompt": [HI], "completions": "x"}, "expected a list 'completions'"),
        ({"prompt": [HI], "completion": "x", "label": "good"}, "expected 'label' true or false"),
        ({"prompt": [HI], "completion": [HI]}, "found a message of the user"),
        ({"prompt": [HI], "completion": [HELLO, HELLO]}, "expected one answer"),
        ({"prompt": [HI], "responses": ["a", "b"], "ranking": [0, 0]}, "must name each of 2 responses once"),
        ({"prompt": [HI], "responses": ["a", "b"], "ranking": 0}, "expected lists"),
        ({"prompt": [HI], "response": "a", "reward": 0.7}, "is 0 or 1; found 0.7"),
        ({"chosen": [HI, HELLO], "rejected": [HELLO]}, "share no message"),
        ({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "c"}, "share no message"),
        ({"input": "x", "preferred_output": [], "non_preferred_output": []}, "expected an object 'input'"),
        ({"conversations": [{"from": "alien", "value": "x"}]}, "needs a 'from' of"),
        ({"conversations": "x"}, "expected a list 'conversations'"),
        ({"instruction": "Hi", "output": 4}, "expected a string 'output'"),
        ({"info": {"post": "x"}, "summaries": [], "choice": 0}, "expected two 'summaries'"),
        ([], "expected a JSON object, found list"),
    ],
)
def test_a_bad_row_is_an_error_that_names_its_place(value: object, message: str) -> None:
    with pytest.raises(DataError) as error:
        read(value)
    assert str(error.value).startswith("here: ")
    assert message in str(error.value)


def test_a_foreign_format_is_named_in_the_log_once(
    write_source: WriteSource, caplog: pytest.LogCaptureFixture
) -> None:
    asked = {"question": "Hi", "answer": "Hello."}
    path = write_source("rows", [asked, asked, asked, {"text": "Once."}])
    with caplog.at_level(logging.INFO):
        assert len(list(read_rows(path))) == 4
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: reading rows of the format 'question and answer'"
    ]


def test_openais_message_weights_choose_the_messages_to_train_on() -> None:
    (row,) = read({"messages": [HI, {**HELLO, "weight": 0}, HI, {**HELLO, "weight": 1}]})
    assert isinstance(row, Conversation)
    assert [row.trains(number) for number in range(4)] == [False, False, False, True]


def test_rows_of_another_kind_than_a_stage_reads_are_named() -> None:
    assert only([TALK], Conversation) == [TALK]
    with pytest.raises(
        DataError, match=r"rows\.jsonl line 4: this stage reads rankings, found conversations"
    ):
        only([PAIR, Conversation(TALK.messages, where="rows.jsonl line 4")], Ranking)


def test_a_user_keeps_all_his_rows_on_one_side_of_the_split() -> None:
    rows: list[Row] = [
        Conversation(({"role": "user", "content": str(n)}, HELLO), user=f"user {n % 100}")
        for n in range(1000)
    ]
    rows += [Prompt(({"role": "user", "content": str(n)},), {"user": f"user {n % 100}"}) for n in range(1000)]
    sides: dict[str, set[bool]] = {}
    for row in rows:
        sides.setdefault(row.group, set()).add(is_held_out(row))
    assert len(sides) == 100
    assert all(len(side) == 1 for side in sides.values())


def test_one_opening_falls_on_one_side_whatever_the_kind_of_row() -> None:
    for number in range(300):
        opening: Message = {"role": "user", "content": f"Question {number}?"}
        kinds: list[Row] = [
            Conversation((opening, HELLO)),
            Ranking((opening,), PAIR.completions),
            Prompt((opening,)),
            Vote((opening,), "Hello.", label=True),
        ]
        assert len({is_held_out(row) for row in kinds}) == 1


def test_a_ranking_gives_each_answer_with_its_prompt() -> None:
    row = Ranking((HI, HELLO, HI), (Completion("a", 1), Completion("b", 1), Completion("c", 2)))
    assert [talk.messages[-1]["content"] for talk in row.conversations] == ["a", "b", "c"]
    assert all(talk.train == (False, False, False, True) for talk in row.conversations)
    assert row.pairs == 2
    assert contents(row) == ["Hi", "Hello.", "Hi", "a", "b", "c"]


WORDS = st.text(max_size=20)
NAMES = st.none() | st.text(min_size=1, max_size=5)


def message(*roles: str) -> st.SearchStrategy[Message]:
    return st.builds(lambda role, content: {"role": role, "content": content}, st.sampled_from(roles), WORDS)


PROMPTS = st.builds(
    lambda before, last: (*before, last),
    st.lists(message("system", "user", "assistant"), max_size=3),
    message("user"),
)
ROWS: st.SearchStrategy[Row] = st.one_of(
    st.builds(Text, st.text(min_size=1).filter(lambda text: not text.isspace())),
    st.builds(
        lambda prompt, reply, flags, **rest: Conversation(
            (*prompt, reply),
            train=None
            if all(flag or each["role"] != "assistant" for flag, each in zip(flags, prompt, strict=False))
            else (
                *(flag and each["role"] == "assistant" for flag, each in zip(flags, prompt, strict=False)),
                True,
            ),
            **rest,
        ),
        PROMPTS,
        message("assistant"),
        st.lists(st.booleans(), min_size=4, max_size=4),
        weight=st.floats(0, 1e9),
        id=NAMES,
        user=NAMES,
    ),
    st.builds(
        Ranking,
        PROMPTS,
        st.lists(st.builds(Completion, WORDS, st.integers(-3, 9), NAMES), min_size=2, max_size=9).map(tuple),
        labeler=NAMES,
        margin=st.floats(0, 10),
        id=NAMES,
        user=NAMES,
    ),
    st.builds(
        Prompt, PROMPTS, st.dictionaries(st.sampled_from(["answer", "user", "topic"]), st.integers() | WORDS)
    ),
    st.builds(Vote, PROMPTS, WORDS, st.booleans(), NAMES, NAMES),
)


@given(ROWS)
def test_native_rows_survive_a_round_trip_through_json(row: Row) -> None:
    format_, rows = convert_row(json.loads(json.dumps(to_json(row))), "here")
    assert rows == [row]
    assert format_.is_native


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 2)
    | st.floats()
    | st.sampled_from(["user", "assistant", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "rank", "text", "from", "value", "messages", "post", "replies"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(FORMATS), st.data())
def test_no_json_object_makes_a_converter_stumble(format_: Format, data: st.DataObject) -> None:
    optional = st.sampled_from(["weight", "user", "id", "labeler", "margin", "worker", "input", "context"])
    value = {
        key: data.draw(JSON) for key in (*data.draw(st.sets(optional, max_size=2)), *sorted(format_.keys))
    }
    with suppress(DataError, UnusableRow):
        assert read(value)
