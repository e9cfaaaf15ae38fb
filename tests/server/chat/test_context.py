"""Truncation: what is kept fits, and it is the right part."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwise_server.chat.context import Fit, TokenCounts, Window, fit, split_exchanges
from turnwise_server.chat.messages import Conversation, Message
from turnwise_server.chat.tools import Tool, ToolCall
from turnwise_server.errors import ContextLengthError


def render(conversation: Conversation) -> tuple[int, ...]:
    """One token a character and three a turn: a template small enough to reckon with."""
    system = [] if conversation.system is None else [1, *(ord(char) for char in conversation.system), 2]
    return (
        *system,
        *(token for turn in conversation.turns for token in (1, *map(ord, turn.content), 2, 3)),
        1,
    )


def turn_tokens(turn: Message) -> int:
    return len(turn.content) + 3


def at_least(conversation: Conversation) -> int:
    return sum(len(turn.content) for turn in conversation.turns)


def rest(conversation: Conversation) -> int:
    return 0 if conversation.system is None else len(conversation.system) + 3


COUNTS = TokenCounts(render, turn_tokens, rest, at_least)


def fitted(
    conversation: Conversation, context_length: int, max_tokens: int = 8, *, truncate: bool = True
) -> Fit:
    window = Window(context_length, max_tokens)
    return fit(conversation, window, COUNTS, truncate=truncate)


def dialogue(exchanges: int, *, words: str = "abcdefg") -> Conversation:
    turns = [Message(role, words) for _ in range(exchanges) for role in ("user", "assistant")]
    return Conversation("sys", (*turns, Message("user", "last")))


conversations = st.builds(
    lambda system, lead, texts: Conversation(
        system,
        tuple(
            Message("user" if index % 2 == lead else "assistant", text, sources=1 + index % 3)
            for index, text in enumerate(texts)
        ),
    ),
    st.none() | st.text(max_size=10),
    st.integers(0, 1),
    st.lists(st.text(max_size=30), min_size=1, max_size=40),
)


@given(conversations, st.integers(8, 400), st.integers(1, 500))
def test_the_kept_prompt_fits_and_keeps_the_ends(
    conversation: Conversation, context: int, max_tokens: int
) -> None:
    last = Conversation(conversation.system, split_exchanges(conversation.turns)[-1])
    if len(render(last)) > context - 1:
        with pytest.raises(ContextLengthError) as caught:
            fitted(conversation, context, max_tokens)
        assert context - 1 < caught.value.prompt_tokens <= len(render(last))
        return
    result = fitted(conversation, context, max_tokens)
    kept = result.conversation
    assert len(result.prompt_ids) < context
    assert result.prompt_ids == render(kept)
    assert kept.system == conversation.system
    assert kept.turns == conversation.turns[len(conversation.turns) - len(kept.turns) :]
    users = [turn for turn in conversation.turns if turn.role == "user"]
    assert not users or users[-1] in kept.turns
    dropped = conversation.turns[: len(conversation.turns) - len(kept.turns)]
    assert result.dropped_messages == sum(turn.sources for turn in dropped)
    assert not dropped or kept.turns[0].role == "user", "turns are dropped in whole exchanges"


@given(conversations, st.integers(8, 400))
def test_truncation_is_deterministic(conversation: Conversation, context: int) -> None:
    def outcome() -> object:
        try:
            return fitted(conversation, context)
        except ContextLengthError as error:
            return error.prompt_tokens

    assert outcome() == outcome()


def test_nothing_is_dropped_from_what_fits() -> None:
    conversation = dialogue(3)
    assert fitted(conversation, 200).conversation == conversation
    assert fitted(conversation, 200).dropped_messages == 0


def test_dropping_comes_in_steps_of_a_quarter_of_the_window() -> None:
    """While a chat grows, the first kept turn stays the same for many turns: the prefix cache survives."""
    context_length, cuts = 400, []
    for exchanges in range(1, 80):
        result = fitted(dialogue(exchanges), context_length)
        cuts.append(result.dropped_messages)
    assert cuts == sorted(cuts)
    steps = [b - a for a, b in itertools.pairwise(cuts) if b > a]
    assert len(steps) > 5
    assert all(step * (len("abcdefg") + 3) >= context_length // 4 - 20 for step in steps)


def test_truncation_leaves_room_for_the_reply() -> None:
    result = fitted(dialogue(50), 400, max_tokens=1000)
    assert 400 - len(result.prompt_ids) >= 100


def test_a_last_message_that_leaves_little_room_is_still_served() -> None:
    conversation = Conversation(None, (Message("user", "x" * 90),))
    assert len(fitted(conversation, 100, max_tokens=50).prompt_ids) == 94


def test_a_last_message_that_cannot_fit_is_refused_with_both_numbers() -> None:
    turns = (Message("user", "a"), Message("assistant", "b"), Message("user", "x" * 95))
    with pytest.raises(ContextLengthError) as caught:
        fitted(Conversation("s", turns), 100)
    assert (caught.value.context_length, caught.value.prompt_tokens) == (100, 102)
    assert caught.value.code == "context_length_exceeded"
    assert "100 tokens" in caught.value.message
    assert "resulted in 102 tokens" in caught.value.message


@pytest.mark.parametrize("truncate", [True, False])
def test_a_hopeless_message_is_refused_without_being_tokenised(truncate: bool) -> None:
    def never(_: object) -> tuple[int, ...]:
        raise AssertionError("tokenised")

    conversation = Conversation(None, (Message("user", "x" * 1_000_000),))
    counts = TokenCounts(never, lambda turn: len(never(turn)), rest, at_least)
    with pytest.raises(ContextLengthError, match="at least 1000000 tokens"):
        fit(conversation, Window(100, 10), counts, truncate=truncate)


def test_disabled_truncation_refuses_instead_of_dropping() -> None:
    with pytest.raises(ContextLengthError):
        fitted(dialogue(50), 400, truncate=False)
    assert fitted(dialogue(2), 400, truncate=False).dropped_messages == 0


def test_a_call_and_its_result_are_dropped_together() -> None:
    call = ToolCall("call_1", "f", "{}")
    exchange = (
        Message("user", "a" * 20),
        Message("assistant", "", tool_calls=(call,)),
        Message("tool", "b" * 20, "f", tool_call_id="call_1"),
        Message("assistant", "c" * 20),
    )
    conversation = Conversation(None, (*exchange * 6, Message("user", "last")))
    for context_length in range(40, 500, 20):
        kept = fitted(conversation, context_length).conversation.turns
        assert kept[0].role == "user"
        assert sum(len(turn.tool_calls) for turn in kept) == sum(turn.role == "tool" for turn in kept)


def test_tools_stay_whatever_is_dropped() -> None:
    conversation = Conversation(None, dialogue(20).turns, (Tool("f"),))
    kept = fitted(conversation, 80)
    assert kept.dropped_messages > 0
    assert kept.conversation.tools == conversation.tools
