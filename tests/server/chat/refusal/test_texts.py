"""Which texts of a request are judged, and where the audit says they came from."""

from __future__ import annotations

from support.attacks import CONVERSATIONS
from turnwise_server.chat.messages import ClientMessage, ContentPart
from turnwise_server.chat.refusal.policy_stages import InputStage
from turnwise_server.chat.refusal.texts import input_texts
from turnwise_server.chat.tools import ToolCall

HISTORY = (
    ClientMessage("system", "Be brief."),
    ClientMessage("user", "Hello", name="anna"),
    ClientMessage("assistant", None, tool_calls=(ToolCall("c", "look_up", '{"word": "cake"}'),)),
    ClientMessage("tool", "A cake is baked.", tool_call_id="c"),
    ClientMessage("assistant", "Shall I go on?"),
    ClientMessage("user", (ContentPart("text", "Yes,"), ContentPart("text", "do."))),
)


def found(messages: tuple[ClientMessage, ...] = HISTORY, **changes: object) -> list[tuple[str, int, str]]:
    texts = input_texts(messages, InputStage.model_validate(changes))
    return [(text.origin, text.turn, text.text) for text in texts]


def test_everything_that_the_client_sends_is_judged_the_last_message_first() -> None:
    assert found() == [
        ("user", 5, "Yes,\ndo."),
        ("user", 1, "Hello"),
        ("joined", 5, "Hello\nYes,\ndo."),
        ("exchange", 5, "Shall I go on?\nYes,\ndo."),
        ("system", 0, "Be brief."),
        ("name", 1, "anna"),
        ("call", 2, 'look_up\n{"word": "cake"}'),
        ("call", 2, "c"),
        ("tool", 3, "A cake is baked."),
        ("assistant", 4, "Shall I go on?"),
    ]


def test_the_policy_can_leave_out_what_the_assistant_and_the_system_said() -> None:
    origins = {origin for origin, _, _ in found(check_client_assistant=False, check_client_system=False)}
    assert origins == {"user", "joined", "exchange", "name", "tool"}


def test_system_messages_of_a_trusted_key_are_not_judged() -> None:
    texts = input_texts(HISTORY, InputStage(), is_trusted=True)
    assert not any(text.origin == "system" for text in texts)


def test_only_the_last_user_messages_are_joined() -> None:
    messages = tuple(
        message
        for number in range(10)
        for message in (ClientMessage("user", str(number)), ClientMessage("assistant", "Yes?"))
    )
    joined = [text for origin, _, text in found(messages, join_user_turns=3) if origin == "joined"]
    assert joined == ["7\n8\n9"]


def test_a_refusal_in_the_history_is_judged() -> None:
    parts = (ContentPart("refusal", "No."),)
    messages = (ClientMessage("assistant", None, refusal="Sorry."), ClientMessage("assistant", parts))
    assert [text for _, _, text in found(messages)] == ["Sorry.\nNo.", "Sorry.", "No."]


def test_requests_without_user_messages_have_texts_too() -> None:
    assert found((ClientMessage("developer", "Greet."),)) == [("system", 0, "Greet.")]
    assert found(()) == []


def test_a_text_is_found_in_every_conversation_that_hides_it() -> None:
    text = "how do I bake a chocolate cake for my brother"
    for name, conversation in CONVERSATIONS.items():
        texts = [words.replace("\n", " ") for _, _, words in found(conversation(text))]
        assert any(text in words for words in texts), name


def test_messages_that_the_model_reads_as_one_turn_are_judged_as_one() -> None:
    words = tuple(ClientMessage("user", str(number)) for number in range(4))
    joined = [text for text in found((*words[:2], HISTORY[0], *words[2:])) if text[0] == "joined"]
    assert joined == [("joined", 4, "0\n1\n2\n3")]


def test_several_system_messages_are_judged_as_one_text_too() -> None:
    messages = (
        ClientMessage("system", "Be"),
        ClientMessage("user", "Hi"),
        ClientMessage("developer", "brief"),
    )
    assert ("joined", 2, "Be\nbrief") in found(messages)


def test_what_was_declined_does_not_bring_its_neighbours_together() -> None:
    messages = (
        ClientMessage("assistant", "Shall I?"),
        ClientMessage("user", "declined"),
        ClientMessage("assistant", "No."),
        ClientMessage("user", "Yes"),
    )
    texts = input_texts(messages, InputStage(), passed_over=(1, 2))
    assert [(text.origin, text.text) for text in texts] == [("user", "Yes"), ("assistant", "Shall I?")]


def test_arguments_are_judged_as_the_model_reads_them() -> None:
    for arguments in ('{"q": "\\u0063ake"}', '{"q": "cake"}', '{"q": "cake", \\u'):
        message = ClientMessage("assistant", None, tool_calls=(ToolCall("c", "f", arguments),))
        assert "cake" in found((message,))[0][2]
