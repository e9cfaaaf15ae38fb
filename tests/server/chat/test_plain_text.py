"""Text without a template: no control tokens from people, ids as they are, and what no model can begin with."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken
from tokenizers.processors import TemplateProcessing

from support.tiny_tokenizers import CHATML, CONTROL_TOKENS, tiny_tokenizer
from turnwise_server.chat.plain_text import PlainText
from turnwise_server.errors import ContextLengthError, RequestError

TOKENIZER = tiny_tokenizer(CHATML)
PLAIN = PlainText(TOKENIZER, vocab_size=len(TOKENIZER))
CONTROL_IDS = set(TOKENIZER.convert_tokens_to_ids(list(CONTROL_TOKENS)))


@given(st.lists(st.sampled_from([*CONTROL_TOKENS, "hello ", "<|", "é"])).map("".join))
def test_text_never_becomes_a_control_token(text: str) -> None:
    ids = PLAIN.encode(text, add_special_tokens=True)
    assert not CONTROL_IDS & set(ids)
    assert PLAIN.decode(ids) == text


def test_words_that_the_template_alone_may_write_are_text_too() -> None:
    tokenizer = tiny_tokenizer(CHATML + "{{ '<tool_call>' if tools }}")
    tokenizer.add_tokens([AddedToken("<tool_call>", special=False), AddedToken("<other>", special=False)])
    tool_call, other = tokenizer.convert_tokens_to_ids(["<tool_call>", "<other>"])
    ids = PlainText(tokenizer, vocab_size=len(tokenizer)).encode("<tool_call><other>")
    assert tool_call not in ids
    assert other in ids


def test_reading_text_leaves_the_tokenizer_of_the_template_alone() -> None:
    before = TOKENIZER.backend_tokenizer.to_str(), TOKENIZER.backend_tokenizer.encode_special_tokens
    PlainText(TOKENIZER, vocab_size=len(TOKENIZER)).encode("hello")
    assert (TOKENIZER.backend_tokenizer.to_str(), TOKENIZER.backend_tokenizer.encode_special_tokens) == before


def test_control_tokens_come_back_written_out() -> None:
    assert PLAIN.decode([2, *PLAIN.encode("hello")]) == "<|im_end|>hello"
    assert PLAIN.tokens(PLAIN.encode(" a")) == ["Ġ", "a"]


async def test_other_threads_run_while_megabytes_are_tokenized() -> None:
    work = asyncio.create_task(asyncio.to_thread(PLAIN.encode, "hello world " * 100_000))
    turns = 0
    while not work.done():
        await asyncio.sleep(0.002)
        turns += 1
    assert len(await work) > 100_000
    assert turns > 10


def test_a_text_begins_as_the_tokenizer_begins_texts() -> None:
    tokenizer = tiny_tokenizer(CHATML)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    plain = PlainText(tokenizer, vocab_size=len(tokenizer))
    assert plain.prompt("", context_length=9) == (0,)
    assert plain.prompt("a", context_length=9) == (0, *plain.encode("a"))
    assert plain.prompt([5], context_length=9) == (5,)


def test_nothing_is_the_first_token_of_the_model_or_refused() -> None:
    tokenizer = tiny_tokenizer(CHATML)
    tokenizer.bos_token = "<|im_start|>"
    assert PlainText(tokenizer, vocab_size=320).prompt([], context_length=9) == (1,)
    for nothing in ("", ()):
        with pytest.raises(RequestError) as refused:
            PLAIN.prompt(nothing, context_length=9)
        assert refused.value.param == "prompt"


@pytest.mark.parametrize("prompt", ["hello world " * 8, [5] * 16, "hello " * 100_000])
def test_a_prompt_that_leaves_no_room_is_refused_with_both_numbers(prompt: str | list[int]) -> None:
    with pytest.raises(
        ContextLengthError, match=r"maximum context length is 16 tokens.*your prompt"
    ) as refused:
        PLAIN.prompt(prompt, context_length=16)
    assert refused.value.prompt_tokens >= 16
    assert refused.value.param == "prompt"


@pytest.mark.parametrize("token_id", [-1, 320, 2**40])
def test_ids_that_are_none_of_the_model_are_refused(token_id: int) -> None:
    with pytest.raises(RequestError, match=str(token_id)):
        PLAIN.prompt([1, token_id], context_length=16)
    with pytest.raises(RequestError, match=str(token_id)):
        PLAIN.decode([token_id])
