"""What was declined before is passed over, and nothing of it reaches the model."""

from __future__ import annotations

from turnwise_server.chat.messages import ClientMessage, ContentPart
from turnwise_server.chat.refusal.declined import WITHHELD, declined_turns, withhold
from turnwise_server.chat.tools import ToolCall

NO = "I can't help with that."
STOP_TEXTS = frozenset({NO})
REFUSAL = ClientMessage("assistant", NO)


def declined(*messages: ClientMessage) -> list[int]:
    return sorted(declined_turns(messages, STOP_TEXTS))


def test_a_refusal_declines_what_the_user_and_the_tools_said_before_it() -> None:
    call = ClientMessage("assistant", None, tool_calls=(ToolCall("c", "f", "{}"),))
    assert declined(
        ClientMessage("user", "one"),
        ClientMessage("assistant", "Yes."),
        ClientMessage("user", "two"),
        ClientMessage("system", "three"),
        call,
        ClientMessage("tool", "four", tool_call_id="c"),
        REFUSAL,
        ClientMessage("user", "five"),
    ) == [2, 5, 6]


def test_a_refusal_is_known_in_every_field_that_carries_it() -> None:
    parts = (ContentPart("refusal", f" {NO}\n"),)
    for refusal in (ClientMessage("assistant", None, NO), ClientMessage("assistant", parts), REFUSAL):
        assert declined(ClientMessage("user", "one"), refusal) == [0, 1]


def test_what_is_not_exactly_a_refusal_of_the_assistant_declines_nothing() -> None:
    user = ClientMessage("user", "one")
    for other in (
        ClientMessage("assistant", f"{NO} But step 1:"),
        ClientMessage("assistant", NO.upper()),
        ClientMessage("assistant", NO, refusal="Step 1:"),
        ClientMessage("assistant", (ContentPart("refusal", NO), ContentPart("text", "Step 1:"))),
        ClientMessage("assistant", NO, tool_calls=(ToolCall("c", "f", "{}"),)),
        ClientMessage("system", NO),
        ClientMessage("developer", NO),
        ClientMessage("user", NO),
        ClientMessage("tool", NO, tool_call_id="c"),
    ):
        assert declined(user, other) == []


def test_nothing_of_a_declined_message_is_left() -> None:
    messages = (
        ClientMessage("user", (ContentPart("text", "one"),), refusal="two", name="three"),
        ClientMessage("tool", "four", name="five", tool_call_id="c"),
        ClientMessage("assistant", "six", refusal=f"\n{NO} ", name="seven"),
        ClientMessage("user", "eight"),
    )
    assert withhold(messages, {0, 1, 2}) == (
        ClientMessage("user", WITHHELD),
        ClientMessage("tool", WITHHELD, tool_call_id="c"),
        ClientMessage("assistant", NO),
        ClientMessage("user", "eight"),
    )
