"""Text streams in whole characters, and logprobs never run ahead of it."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from support.tiny_tokenizers import tiny_tokenizer
from turnwise_server.chat.detokenizer import Detokenizer
from turnwise_server.chat.token_text import token_bytes

TOKENIZER = tiny_tokenizer()
BACKEND = TOKENIZER.backend_tokenizer
BYTES = token_bytes(TOKENIZER)


def encode(text: str) -> list[int]:
    return list(TOKENIZER.encode(text, add_special_tokens=False, split_special_tokens=True))


@given(st.text(max_size=40))
@example("a\N{REPLACEMENT CHARACTER}")
def test_streamed_text_is_the_whole_text_and_never_half_a_character(text: str) -> None:
    detokenizer: Detokenizer[int] = Detokenizer(BACKEND, BYTES)
    shown = ""
    for token_id in encode(text):
        shown += detokenizer.feed(token_id).text
        assert text.startswith(shown)
    assert shown + detokenizer.finish().text == text


@given(st.text(alphabet="aé日🎉👨‍👩‍👧", min_size=1, max_size=12), st.data())
def test_text_cut_at_any_token_is_a_prefix_without_replacement_characters(
    text: str, data: st.DataObject
) -> None:
    ids = encode(text)
    cut = data.draw(st.integers(0, len(ids)))
    detokenizer: Detokenizer[int] = Detokenizer(BACKEND, BYTES)
    shown = "".join(detokenizer.feed(token_id).text for token_id in ids[:cut]) + detokenizer.finish().text
    assert text.startswith(shown)


@given(st.lists(st.integers(0, 319), max_size=40))
def test_any_token_sequence_gives_the_same_text_streamed_and_at_once(ids: list[int]) -> None:
    detokenizer: Detokenizer[int] = Detokenizer(BACKEND, BYTES)
    shown = "".join(detokenizer.feed(token_id).text for token_id in ids) + detokenizer.finish().text
    whole = str(TOKENIZER.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
    assert whole.startswith(shown)
    assert set(whole[len(shown) :]) <= {"�"}, "only the bytes of an unfinished character are missing"


def test_special_tokens_show_no_text() -> None:
    detokenizer: Detokenizer[int] = Detokenizer(BACKEND, BYTES)
    ids = [*encode("hello"), TOKENIZER.convert_tokens_to_ids("<|im_start|>"), *encode(" world")]
    assert (
        "".join(detokenizer.feed(token_id).text for token_id in ids) + detokenizer.finish().text
        == "hello world"
    )


@given(
    st.text(alphabet="ab日🎉", max_size=20),
    st.lists(st.text(alphabet="ab日", min_size=1, max_size=3), max_size=2),
)
def test_notes_come_in_order_and_only_with_text_that_is_shown(text: str, stops: list[str]) -> None:
    detokenizer: Detokenizer[tuple[int, int]] = Detokenizer(BACKEND, BYTES, stops)
    to_bytes, shown, noted = token_bytes(TOKENIZER), "", b""
    order = []
    for position, token_id in enumerate(encode(text)):
        piece = detokenizer.feed(token_id, (position, token_id))
        shown += piece.text
        noted += b"".join(to_bytes(token) for _, token in piece.notes)
        order += [index for index, _ in piece.notes]
        assert shown.encode().startswith(noted)
        if detokenizer.stopped:
            break
    final = detokenizer.finish()
    order += [index for index, _ in final.notes]
    assert order == list(range(len(order)))
    if not detokenizer.stopped:
        assert len(order) == len(encode(text))


def test_an_unfinished_character_gives_its_notes_but_no_text_at_the_end() -> None:
    ids = encode("🎉")
    assert len(ids) > 1
    detokenizer: Detokenizer[str] = Detokenizer(BACKEND, BYTES)
    assert detokenizer.feed(ids[0], "first").notes == ()
    final = detokenizer.finish()
    assert (final.text, final.notes) == ("", ("first",))


@pytest.mark.parametrize("text", ["hello", " world", "é", "日本", "🎉", "a\nb\t\0"])
def test_token_bytes_join_to_the_exact_text(text: str) -> None:
    to_bytes = token_bytes(TOKENIZER)
    assert b"".join(to_bytes(token_id) for token_id in encode(text)) == text.encode()
