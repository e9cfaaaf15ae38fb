"""The normal form of messages."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwise_server.chat.messages import ClientMessage, ContentPart, Conversation, Message, normalise
from turnwise_server.chat.tools import ToolCall
from turnwise_server.errors import RequestError


def test_plain_dialogue_is_already_in_normal_form() -> None:
    messages = [
        ClientMessage("system", "Be kind."),
        ClientMessage("user", "Hi"),
        ClientMessage("assistant", "Hello!"),
    ]
    assert normalise(messages) == Conversation(
        "Be kind.", (Message("user", "Hi"), Message("assistant", "Hello!"))
    )


def test_developer_is_system() -> None:
    assert (
        normalise([ClientMessage("developer", "Be brief."), ClientMessage("user", "Hi")]).system
        == "Be brief."
    )


def test_system_messages_anywhere_join_the_system_text_in_order() -> None:
    conversation = normalise(
        [
            ClientMessage("system", "A"),
            ClientMessage("user", "Hi"),
            ClientMessage("system", "B"),
            ClientMessage("user", "x"),
        ]
    )
    assert conversation == Conversation("A\n\nB", (Message("user", "Hi\n\nx", sources=2),))


def test_neighbours_of_one_role_merge_with_a_blank_line() -> None:
    conversation = normalise(
        [ClientMessage("user", "one"), ClientMessage("user", "two"), ClientMessage("user", "three")]
    )
    assert conversation.turns == (Message("user", "one\n\ntwo\n\nthree", sources=3),)


def test_leading_assistant_message_is_allowed() -> None:
    turns = normalise([ClientMessage("assistant", "Welcome!"), ClientMessage("user", "Hi")]).turns
    assert [turn.role for turn in turns] == ["assistant", "user"]


def test_text_parts_are_joined_in_every_role() -> None:
    parts = (ContentPart("text", "one"), ContentPart("text", "two"))
    for role in ("system", "user", "assistant"):
        conversation = normalise([ClientMessage(role, parts)])
        assert (conversation.system or conversation.turns[0].content) == "one\ntwo"


def test_refusals_come_back_as_the_assistants_text() -> None:
    as_field = normalise([ClientMessage("assistant", None, refusal="No."), ClientMessage("user", "Hm")])
    as_part = normalise(
        [ClientMessage("assistant", (ContentPart("refusal", "No."),)), ClientMessage("user", "Hm")]
    )
    assert as_field == as_part
    assert as_field.turns[0].content == "No."


def test_empty_user_content_is_allowed() -> None:
    assert normalise([ClientMessage("user", "")]).turns == (Message("user", ""),)


def test_names_are_kept_only_for_templates_that_write_them() -> None:
    messages = [ClientMessage("user", "Hi", name="Ada"), ClientMessage("user", "Hey", name="Bob")]
    assert normalise(messages).turns == (Message("user", "Hi\n\nHey", sources=2),)
    assert [turn.name for turn in normalise(messages, keep_names=True).turns] == ["Ada", "Bob"]


@pytest.mark.parametrize(
    ("messages", "param", "code"),
    [
        ([], "messages", "empty_array"),
        ([ClientMessage("wizard", "Hi")], "messages[0].role", "invalid_value"),
        ([ClientMessage("user", "Hi"), ClientMessage("tool", "42")], "messages[1].role", "unsupported_value"),
        ([ClientMessage("user", None)], "messages[0].content", "invalid_type"),
        ([ClientMessage("assistant", None)], "messages[0].content", "invalid_type"),
        (
            [ClientMessage("user", (ContentPart("image_url", ""),))],
            "messages[0].content[0].type",
            "unsupported_value",
        ),
        (
            [ClientMessage("user", (ContentPart("refusal", "x"),))],
            "messages[0].content[0].type",
            "unsupported_value",
        ),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(
    messages: list[ClientMessage], param: str, code: str
) -> None:
    with pytest.raises(RequestError) as caught:
        normalise(messages)
    assert (caught.value.param, caught.value.code) == (param, code)


@given(
    st.lists(st.tuples(st.sampled_from(["system", "developer", "user", "assistant"]), st.text()), min_size=1)
)
def test_normal_form_alternates_and_loses_no_text(pairs: list[tuple[str, str]]) -> None:
    conversation = normalise([ClientMessage(role, text) for role, text in pairs])
    roles = [turn.role for turn in conversation.turns]
    assert all(a != b for a, b in itertools.pairwise(roles))
    kept = "\0".join([conversation.system or "", *(turn.content for turn in conversation.turns)])
    assert all(text in kept for _, text in pairs)
    assert sum(turn.sources for turn in conversation.turns) == sum(
        role in ("user", "assistant") for role, _ in pairs
    )


CALL = ToolCall("call_1", "f", "{}")


def test_calls_and_results_keep_their_places() -> None:
    messages = [
        ClientMessage("user", "Weather?"),
        ClientMessage("assistant", None, tool_calls=(CALL, ToolCall("call_2", "g", "{}"))),
        ClientMessage("tool", "snow", tool_call_id="call_1"),
        ClientMessage("tool", (ContentPart("text", "su"), ContentPart("text", "n")), tool_call_id="call_2"),
        ClientMessage("assistant", "Mixed."),
    ]
    turns = normalise(messages, knows_tools=True).turns
    assert [(turn.role, turn.content, turn.name) for turn in turns] == [
        ("user", "Weather?", None),
        ("assistant", "", None),
        ("tool", "snow", "f"),
        ("tool", "su\nn", "g"),
        ("assistant", "Mixed.", None),
    ]
    assert [call.id for call in turns[1].tool_calls] == ["call_1", "call_2"]
    assert [turn.tool_call_id for turn in turns[2:4]] == ["call_1", "call_2"]


def test_consecutive_messages_of_the_assistant_are_merged_with_their_calls() -> None:
    second = ToolCall("call_2", "g", "{}")
    messages = [
        ClientMessage("assistant", "One moment.", tool_calls=(CALL,)),
        ClientMessage("assistant", None, tool_calls=(second,)),
    ]
    assert normalise(messages, knows_tools=True).turns == (
        Message("assistant", "One moment.", sources=2, tool_calls=(CALL, second)),
    )


def test_a_call_may_be_answered_late_twice_or_never() -> None:
    messages = [
        ClientMessage("assistant", None, tool_calls=(CALL,)),
        ClientMessage("user", "Well?"),
        ClientMessage("tool", "a", tool_call_id="call_1"),
        ClientMessage("tool", "b", tool_call_id="call_1"),
        ClientMessage("assistant", "", tool_calls=(ToolCall("call_2", "g", "{}"),)),
    ]
    assert len(normalise(messages, knows_tools=True).turns) == 5


@pytest.mark.parametrize(
    ("message", "param", "code"),
    [
        (ClientMessage("tool", "x"), "messages[1].tool_call_id", "missing_required_parameter"),
        (ClientMessage("tool", "x", tool_call_id="call_9"), "messages[1].tool_call_id", "invalid_value"),
        (ClientMessage("tool", None, tool_call_id="call_1"), "messages[1].content", "invalid_type"),
        (ClientMessage("user", "x", tool_calls=(CALL,)), "messages[1].tool_calls", "invalid_value"),
        (ClientMessage("function", "x"), "messages[1].role", "unsupported_value"),
    ],
)
def test_a_wrong_message_about_tools_is_refused_by_name(
    message: ClientMessage, param: str, code: str
) -> None:
    with pytest.raises(RequestError) as caught:
        normalise([ClientMessage("assistant", None, tool_calls=(CALL,)), message], knows_tools=True)
    assert (caught.value.param, caught.value.code) == (param, code)


def test_calls_are_refused_where_the_template_does_not_know_tools() -> None:
    with pytest.raises(RequestError) as caught:
        normalise([ClientMessage("assistant", None, tool_calls=(CALL,))])
    assert (caught.value.param, caught.value.code) == ("messages[0].tool_calls", "unsupported_parameter")
