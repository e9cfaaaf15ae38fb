"""Which prompts are asked: what rows give, what is left out, and in what order, resumed or not."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from turnwise_training.chat import Encoder
from turnwise_training.data import Completion, Conversation, Message, Prompt, Ranking, Text
from turnwise_training.errors import ConfigurationError
from turnwise_training.prompts import REFERENCE, prompt_indices, prompt_of, read_prompts

Writer = Callable[[str, list[object]], Path]


def said(role: Literal["user", "assistant"], content: str) -> Message:
    return {"role": role, "content": content}


def asked(index: int, words: int = 1) -> dict[str, object]:
    return {"prompt": [said("user", f"Ask {index}." + " More words." * words)]}


@given(
    count=st.integers(1, 40), batch=st.integers(1, 50), seed=st.integers(0, 99), iterations=st.integers(1, 6)
)
def test_34_every_prompt_is_asked_once_before_any_is_asked_again(
    count: int, batch: int, seed: int, iterations: int
) -> None:
    order = [
        index
        for iteration in range(iterations)
        for index in prompt_indices(iteration, batch=batch, count=count, seed=seed)
    ]
    assert len(order) == iterations * batch
    for start in range(0, len(order), count):
        epoch = order[start : start + count]
        assert len(set(epoch)) == len(epoch)
        assert set(epoch) <= set(range(count))


@given(count=st.integers(1, 40), batch=st.integers(1, 20), cut=st.integers(0, 5))
def test_34_a_resumed_run_repeats_and_skips_no_prompt(count: int, batch: int, cut: int) -> None:
    def indices(iteration: int) -> list[int]:
        return prompt_indices(iteration, batch=batch, count=count, seed=7)

    whole = [index for iteration in range(6) for index in indices(iteration)]
    after = [index for iteration in range(cut, 6) for index in indices(iteration)]
    assert whole[cut * batch :] == after


def test_the_order_depends_on_the_seed_and_changes_with_each_epoch() -> None:
    orders = [tuple(prompt_indices(i, batch=20, count=20, seed=s)) for i in range(3) for s in (1, 2)]
    assert len(set(orders)) == len(orders)


def test_a_conversation_asks_what_its_last_reply_answered_and_keeps_that_reply() -> None:
    messages = (said("user", "a"), said("assistant", "b"), said("user", "c"), said("assistant", "d"))
    prompt = prompt_of(Conversation((*messages, said("user", "e"))))
    assert prompt == Prompt(messages[:3], {REFERENCE: "d"})


def test_a_ranking_asks_its_prompt() -> None:
    messages = (said("user", "a"),)
    completions = (Completion("x", 1), Completion("y", 2))
    assert prompt_of(Ranking(messages, completions)) == Prompt(messages, {})


@pytest.mark.parametrize(
    "row",
    [
        Text("words"),
        Conversation((said("user", "a"),)),
        Conversation((said("assistant", "b"), said("user", "a"))),
    ],
)
def test_a_row_that_asks_nothing_gives_no_prompt(row: Text | Conversation) -> None:
    assert prompt_of(row) is None


def test_distinct_prompts_of_at_most_so_many_tokens_are_read(
    write_source: Writer, tokenizer: PreTrainedTokenizerFast, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = Encoder(tokenizer)
    rows: list[object] = [asked(n % 40, words=0 if n % 40 else 30) for n in range(80)]
    data = write_source("asked", rows).parent
    train = read_prompts({"asked": 100}, encoder, data=data, max_tokens=40, seed=1)
    held_out = read_prompts(
        {"asked": 100}, encoder, data=data, max_tokens=40, seed=1, held_out=True, required=False
    )
    found = [tuple(prompt.ids) for prompt in train]
    assert len(set(found)) == len(found)
    assert 30 < len(found) < 40
    assert not set(found) & {tuple(prompt.ids) for prompt in held_out}
    assert all(prompt.ids == encoder.prompt_ids(prompt.prompt.prompt) for prompt in train)
    assert max(map(len, found)) <= 40
    assert "2 prompts are over 40 tokens and are left out" in capsys.readouterr().err
    assert len(read_prompts({"asked": 5}, encoder, data=data, max_tokens=40, seed=1)) <= 5


def test_no_prompt_short_enough_is_an_error_that_says_so(
    write_source: Writer, tokenizer: PreTrainedTokenizerFast
) -> None:
    data = write_source("asked", [asked(n) for n in range(9)]).parent
    with pytest.raises(ConfigurationError, match=r"no prompts of at most 3 tokens in \['asked'\]"):
        read_prompts({"asked": 9}, Encoder(tokenizer), data=data, max_tokens=3, seed=1)
