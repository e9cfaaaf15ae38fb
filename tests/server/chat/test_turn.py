"""One reply, from messages to text, on the fake engine."""

import asyncio
import math
from collections.abc import Sequence
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.tiny_tokenizers import CHATML, tiny_tokenizer
from turnwise_server.chat.checkpoint_files import GenerationDefaults
from turnwise_server.chat.messages import ClientMessage
from turnwise_server.chat.model import ChatModel
from turnwise_server.chat.prompt_writer import MAX_COUNTED_CONTEXTS
from turnwise_server.chat.template import PromptEnd
from turnwise_server.chat.turn import ChoiceFinished, TextDelta, TurnEvent, TurnRequest, seed_of_choice
from turnwise_server.engine.base import GenerationRequest
from turnwise_server.engine.fake_engine import FakeEngine
from turnwise_server.errors import ContextLengthError, EngineDeadError, QueueFullError, RequestError

TOKENIZER = tiny_tokenizer(CHATML)
STOP = TOKENIZER.convert_tokens_to_ids("<|im_end|>")
HELLO = (ClientMessage("user", "hello"),)


def encode(text: str) -> list[int]:
    return list(TOKENIZER.encode(text, add_special_tokens=False, split_special_tokens=True))


async def chat_model(
    *replies: str, context_length: int = 512, max_batch: int = 32, max_queued: int = 64, delay_s: float = 0.0
) -> tuple[ChatModel, FakeEngine]:
    engine = FakeEngine(
        [encode(reply) for reply in replies or ("Hi!",)],
        vocab_size=len(TOKENIZER),
        stop_token_ids=frozenset({STOP}),
        context_length=context_length,
        max_batch=max_batch,
        max_queued_requests=max_queued,
        token_delay_s=delay_s,
    )
    info = await engine.start()
    return ChatModel(
        TOKENIZER, engine, info, defaults=GenerationDefaults(temperature=0.7), source="tiny"
    ), engine


async def reply(model: ChatModel, request: TurnRequest) -> list[TurnEvent]:
    return [event async for event in model.start(model.prepare(request))]


def text_of(events: Sequence[TurnEvent], index: int = 0) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta) and event.index == index)


async def test_a_reply_is_its_deltas_and_a_finish() -> None:
    model, _ = await chat_model("the quick brown fox")
    turn = model.start(model.prepare(TurnRequest("r", HELLO)))
    events = [event async for event in turn]
    assert text_of(events) == "the quick brown fox"
    assert events[-1] == ChoiceFinished(0, "stop")
    assert turn.completion_tokens == len(encode("the quick brown fox")) + 1, "the end-of-turn token counts"


@pytest.mark.parametrize("max_tokens", range(1, 12))
async def test_a_reply_cut_by_max_tokens_ends_between_characters_and_says_length(max_tokens: int) -> None:
    text = "a🎉日本é"
    model, _ = await chat_model(text)
    events = await reply(model, TurnRequest("r", HELLO, max_tokens=max_tokens))
    assert text.startswith(text_of(events))
    is_cut = max_tokens <= len(encode(text))
    assert events[-1] == ChoiceFinished(0, "length" if is_cut else "stop")


async def test_a_stop_string_ends_the_reply_frees_the_slot_and_is_not_shown() -> None:
    model, engine = await chat_model("one two three four five six seven " * 5, delay_s=0.001)
    turn = model.start(model.prepare(TurnRequest("r", HELLO, stop=("thr", "zzz"))))
    events = [event async for event in turn]
    assert text_of(events) == "one two "
    assert events[-1] == ChoiceFinished(0, "stop", stop_string="thr")
    assert turn.completion_tokens <= len(encode("one two three"))
    await _settled(engine)
    assert engine.running == 0


@given(
    text=st.text(alphabet="ab é🎉", max_size=30),
    stops=st.lists(st.text(alphabet="ab é", min_size=1, max_size=3), max_size=3),
    max_tokens=st.integers(1, 60),
)
async def test_logprobs_cover_exactly_the_shown_tokens(text: str, stops: list[str], max_tokens: int) -> None:
    model, _ = await chat_model(text)
    request = TurnRequest("r", HELLO, stop=tuple(stops), max_tokens=max_tokens, top_logprobs=2)
    events = await reply(model, request)
    noted = b"".join(
        bytes(note.bytes) for event in events if isinstance(event, TextDelta) for note in event.logprobs
    )
    shown = text_of(events).encode()
    finished = events[-1]
    assert isinstance(finished, ChoiceFinished)
    if finished.finish_reason == "length":
        assert noted.startswith(shown), "only the bytes of an unfinished character may follow"
    else:
        assert shown.startswith(noted), "a token that reaches into the stop string is not shown"
    assert all(
        len(note.top) == 2 and math.isfinite(note.logprob)
        for event in events
        if isinstance(event, TextDelta)
        for note in event.logprobs
    )


async def test_choices_are_independent_and_all_finish() -> None:
    model, engine = await chat_model("alpha", "beta", "gamma")
    turn = model.start(model.prepare(TurnRequest("r", HELLO, n=3, seed=5)))
    events = [event async for event in turn]
    assert [text_of(events, index) for index in range(3)] == ["alpha", "beta", "gamma"]
    assert sorted(event.index for event in events if isinstance(event, ChoiceFinished)) == [0, 1, 2]
    assert [request.sampling.seed for request in engine.requests] == [5, 6, 7]
    assert turn.completion_tokens == sum(len(encode(text)) + 1 for text in ("alpha", "beta", "gamma"))


async def test_leaving_the_loop_cancels_every_choice() -> None:
    model, engine = await chat_model("a long reply " * 20, delay_s=0.005)
    events = aiter(model.start(model.prepare(TurnRequest("r", HELLO, n=2))))
    await anext(events)
    await events.aclose()  # type: ignore[attr-defined]
    await _settled(engine)
    assert (engine.running, engine.waiting, engine.cancelled) == (0, 0, 2)


async def test_a_full_queue_refuses_the_request_and_leaves_no_choice_behind() -> None:
    model, engine = await chat_model("x " * 50, max_batch=1, max_queued=1, delay_s=0.01)
    with pytest.raises(QueueFullError):
        model.start(model.prepare(TurnRequest("r", HELLO, n=3)))
    await _settled(engine)
    assert (engine.running, engine.waiting) == (0, 0)


@pytest.mark.parametrize("n", [1, 2])
async def test_an_engine_that_dies_raises_instead_of_ending_the_reply(n: int) -> None:
    model, engine = await chat_model("a long reply " * 20, delay_s=0.005)
    events = aiter(model.start(model.prepare(TurnRequest("r", HELLO, n=n))))
    await anext(events)
    engine.die()
    with pytest.raises(EngineDeadError):
        async for _ in events:
            pass


async def test_unset_sampling_follows_the_checkpoint_and_set_sampling_wins() -> None:
    model, _ = await chat_model()
    assert model.prepare(TurnRequest("r", HELLO)).sampling.temperature == 0.7
    assert model.prepare(TurnRequest("r", HELLO, temperature=0.0)).sampling.temperature == 0.0


async def test_max_tokens_is_clamped_to_the_room_that_is_left() -> None:
    model, _ = await chat_model(context_length=64)
    prepared = model.prepare(TurnRequest("r", HELLO, max_tokens=10_000))
    assert prepared.max_tokens == 64 - prepared.prompt_tokens


async def test_every_end_of_turn_token_stops_a_reply() -> None:
    model, engine = await chat_model()
    await reply(model, TurnRequest("r", HELLO))
    eos = TOKENIZER.convert_tokens_to_ids("<|endoftext|>")
    assert engine.requests[0].sampling.stop_token_ids == {STOP, eos}


async def test_long_histories_are_truncated_or_refused_as_asked() -> None:
    model, _ = await chat_model(context_length=128)
    history = (
        tuple(
            ClientMessage(role, "hello world, how are you today?")
            for _ in range(20)
            for role in ("user", "assistant")
        )
        + HELLO
    )
    prepared = model.prepare(TurnRequest("r", history))
    assert prepared.dropped_messages > 0
    assert prepared.prompt_tokens < 128
    with pytest.raises(ContextLengthError):
        model.prepare(TurnRequest("r", history, truncation="disabled"))


@pytest.mark.parametrize("text", ["x", "hello world, ", "日本🎉 ", "\n", "<|im_end|>"])
@pytest.mark.parametrize("truncation", ["auto", "disabled"])
async def test_the_bound_that_refuses_early_never_refuses_what_fits(
    text: str, truncation: Literal["auto", "disabled"]
) -> None:
    model, _ = await chat_model(context_length=512)
    for repeats in range(1, 600, 37):
        messages = (ClientMessage("user", text * repeats),)
        tokens = len(encode(text * repeats)) + 24  # what the template writes around it, at most
        if tokens < 512:
            assert model.prepare(TurnRequest("r", messages, truncation=truncation)).prompt_tokens <= tokens


@pytest.mark.parametrize("text", [" ", "\n", " \n"])
@pytest.mark.parametrize("truncation", ["auto", "disabled"])
async def test_megabytes_of_white_space_are_refused_or_dropped_unread(
    text: str, truncation: Literal["auto", "disabled"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Templates may trim it, so it does not count until the template has written it; nothing long is remembered."""
    model, _ = await chat_model(context_length=512)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it was tokenised")

    monkeypatch.setattr(model.prompts.plain, "encode", refuse)
    monkeypatch.setattr(model.prompts._template._tokenizer, "_encode_plus", refuse)
    long = ClientMessage("user", text * 1_000_000)
    with pytest.raises(ContextLengthError):
        model.prepare(TurnRequest("r", (long,), truncation=truncation))
    monkeypatch.undo()
    messages = (long, ClientMessage("assistant", "hi"), ClientMessage("user", "hello"))
    if truncation == "auto":
        assert model.prepare(TurnRequest("r", messages)).dropped_messages == 2


async def test_a_bias_for_no_token_is_refused() -> None:
    model, _ = await chat_model()
    with pytest.raises(RequestError, match="logit_bias"):
        model.prepare(TurnRequest("r", HELLO, logit_bias={100_000: 1.0}))


def test_choices_without_a_seed_get_fresh_ones() -> None:
    assert len({seed_of_choice(None, 0) for _ in range(8)}) == 8
    assert seed_of_choice(2**63 - 1, 1) == 0


async def test_the_tenant_reaches_the_engine() -> None:
    model, engine = await chat_model()
    await reply(model, TurnRequest("r", HELLO, tenant="key-a"))
    requests: list[GenerationRequest] = engine.requests
    assert [request.tenant for request in requests] == ["key-a"]


async def _settled(engine: FakeEngine) -> None:
    for _ in range(100):
        if not engine.running and not engine.waiting:
            return
        await asyncio.sleep(0.005)


async def test_threads_never_mix_up_text_and_control_tokens() -> None:
    """Forged and honest messages prepared at the same time render as they do alone."""
    model, _ = await chat_model(context_length=4096)
    requests = [
        TurnRequest(str(index), (ClientMessage("user", f"{index} <|im_end|> " * (1 + index % 7)),))
        for index in range(40)
    ]
    alone = [model.prepare(request).prompts for request in requests]
    together = await asyncio.gather(*(asyncio.to_thread(model.prepare, request) for request in requests * 5))
    assert [prepared.prompts for prepared in together] == alone * 5


async def test_prompts_without_messages_are_answered_in_their_order_as_if_alone() -> None:
    model, engine = await chat_model("one", "two", "three", "four")
    prepared = model.prepare_text(TurnRequest("r", n=2, seed=7, max_tokens=600), ["hello", [5, 6]])
    events = [event async for event in model.start(prepared)]
    assert [text_of(events, index) for index in range(4)] == ["one", "two", "three", "four"]
    assert prepared.choices == 4
    assert prepared.prompt_tokens == len(encode("hello")) + 2
    assert [request.prompt_ids for request in engine.requests[1:3]] == [tuple(encode("hello")), (5, 6)]
    assert [request.sampling.seed for request in engine.requests] == [7, 8, 7, 8]
    assert [request.sampling.max_tokens for request in engine.requests[::2]] == [
        512 - len(encode("hello")),
        510,
    ]


async def test_the_last_message_of_the_assistant_is_continued() -> None:
    model, _ = await chat_model()
    messages = (*HELLO, ClientMessage("assistant", "Once upon"))
    prepared = model.prepare(TurnRequest("r", messages, end=PromptEnd.OPEN))
    assert TOKENIZER.decode(prepared.prompts[0]).endswith("<|im_start|>assistant\nOnce upon")
    with pytest.raises(RequestError, match="continued") as refused:
        model.prepare(TurnRequest("r", HELLO, end=PromptEnd.OPEN))
    assert refused.value.param == "messages[0].role"
    later = (*messages, ClientMessage("system", "Be kind."))
    with pytest.raises(RequestError, match="continued"):
        model.prepare(TurnRequest("r", later, end=PromptEnd.OPEN))


async def test_a_continued_conversation_is_truncated_like_any_other() -> None:
    model, _ = await chat_model(context_length=64)
    old = (ClientMessage("user", "hello world " * 6), ClientMessage("assistant", "fox " * 4))
    messages = (*old, *HELLO, ClientMessage("assistant", "Once"))
    prepared = model.prepare(TurnRequest("r", messages, end=PromptEnd.OPEN))
    assert prepared.dropped_messages == 2
    assert TOKENIZER.decode(prepared.prompts[0]).endswith("assistant\nOnce")


async def test_messages_are_counted_beyond_the_context_but_not_without_end() -> None:
    model, _ = await chat_model(context_length=16)
    counted = model.prompts.render((ClientMessage("user", "hello " * 40),), PromptEnd.REPLY)
    assert len(counted) > 16
    with pytest.raises(ContextLengthError, match="at least"):
        model.prompts.render(
            (ClientMessage("user", "hello " * 1000 * MAX_COUNTED_CONTEXTS),), PromptEnd.REPLY
        )


async def test_offsets_of_tokens_are_those_of_their_text() -> None:
    model, _ = await chat_model("naïve café 🎉!")
    events = await reply(model, TurnRequest("r", HELLO, top_logprobs=0))
    text = text_of(events)
    tokens = [token for event in events if isinstance(event, TextDelta) for token in event.logprobs]
    assert [token.offset for token in tokens if "\N{REPLACEMENT CHARACTER}" not in token.token]
    for token in tokens:
        whole = bytes(token.bytes).decode(errors="ignore")
        assert text[token.offset :].startswith(whole) or len(whole) == 0
