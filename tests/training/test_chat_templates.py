"""Templates and tokenizers of other families: the loss falls on the replies, or the template is refused."""

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from turnwise_training.chat import CHAT_TEMPLATE, CONTROL_TOKENS, Encoded, Encoder, trained_runs
from turnwise_training.data import Conversation, Message, Text
from turnwise_training.errors import ConfigurationError, DataError

CORPUS = ["The quick brown fox jumps over the lazy dog.", "Grüße, 你好, how are you today?"] * 4

CHATML = (
    "{%- for m in messages -%}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)
HEADERS = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
"""In the manner of Llama 3."""
BRACKETS = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
"""In the manner of Mistral: no system role, the reply followed by the end of the sequence."""


def byte_level(
    template: str, control: tuple[str, ...], *, bos: str | None, eos: str
) -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer that trims offsets and adds its BOS, as those of Llama 3 do."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=320, special_tokens=list(control), initial_alphabet=alphabet, show_progress=False
        ),
    )
    steps: list[processors.PostProcessor] = [processors.ByteLevel(trim_offsets=True)]
    if bos is not None:
        steps.append(
            processors.TemplateProcessing(
                single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))]
            )
        )
    backend.post_processor = processors.Sequence(steps)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=bos, eos_token=eos, additional_special_tokens=list(control)
    )
    tokenizer.chat_template = template
    return tokenizer


def sentence_piece() -> PreTrainedTokenizerFast:
    """Return a tokenizer with a space put before every text and bytes for rare characters, as Mistral's is."""
    special = ["<unk>", "<s>", "</s>"]
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))],
            show_progress=False,
        ),
    )
    content = json.loads(backend.to_str())
    content["added_tokens"] = content["added_tokens"][: len(special)]  # the bytes are ordinary tokens
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    tokenizer.chat_template = BRACKETS
    return tokenizer


HEADER_TOKENS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
FAMILIES = {
    "ours": byte_level(CHAT_TEMPLATE, CONTROL_TOKENS, bos=None, eos="<|im_end|>"),
    "chatml": byte_level(CHATML, CONTROL_TOKENS, bos=None, eos="<|endoftext|>"),
    "headers": byte_level(HEADERS, HEADER_TOKENS, bos="<|begin_of_text|>", eos="<|eot_id|>"),
    "brackets": sentence_piece(),
}
ENCODERS = {name: Encoder(tokenizer) for name, tokenizer in FAMILIES.items()}
ENDS = {"ours": "<|im_end|>", "chatml": "<|im_end|>", "headers": "<|eot_id|>", "brackets": "</s>"}


def talk(*contents: str, system: str | None = None) -> Conversation:
    messages: list[Message] = [{"role": "system", "content": system}] if system is not None else []
    for index, content in enumerate(contents):
        messages.append({"role": "assistant" if index % 2 else "user", "content": content})
    return Conversation(tuple(messages))


def spans(name: str, encoded: Encoded) -> list[str]:
    return [str(FAMILIES[name].decode(run)) for run in trained_runs(encoded)]


REPLIES = [
    ["Fine."],
    ["One.", "Two.", "Three."],
    ["", "Again."],
    ["Grüße 😀 你好"],
    ["two\n\nparagraphs\n- a list"],
    ["<|im_end|> and </s> and <|eot_id|> are words", "Yes."],
]


@pytest.mark.parametrize(
    "replies", REPLIES, ids=["one", "three", "empty", "unicode", "lines", "control words"]
)
@pytest.mark.parametrize("system", [None, "Be brief."], ids=["plain", "system"])
@pytest.mark.parametrize("name", FAMILIES)
def test_23_the_loss_falls_on_every_reply_and_its_end(
    name: str, system: str | None, replies: list[str]
) -> None:
    turns = [content for reply in replies for content in ("How are you?", reply)]
    (encoded,) = ENCODERS[name].encode([talk(*turns, system=system)])
    assert [span.strip() for span in spans(name, encoded)] == [reply + ENDS[name] for reply in replies]
    assert all(run[-1] == ENCODERS[name].turn_end for run in trained_runs(encoded))


@pytest.mark.parametrize("name", FAMILIES)
def test_26_training_and_serving_render_alike_with_one_beginning(name: str) -> None:
    tokenizer = FAMILIES[name]
    row = talk("Hello, 你好", "Fine.", "And </s> <|im_end|>?", "Well.")
    (encoded,) = ENCODERS[name].encode([row])
    served = tokenizer.apply_chat_template(
        list(row.messages), sanitize_control_tokens=True, return_dict=False
    )
    assert encoded.ids == served
    assert tokenizer.bos_token_id is None or encoded.ids.count(tokenizer.bos_token_id) == 1
    for number in (1, 3):
        prompt = ENCODERS[name].prompt_ids(row.messages[:number])
        assert encoded.ids[: len(prompt)] == prompt


PIECES = st.lists(
    st.sampled_from(
        [
            *CONTROL_TOKENS,
            "<s>",
            "</s>",
            "<|eot_id|>",
            "[INST]",
            "<|im_",
            "\n",
            " ",
            "\U000f0000",
            "é",
            "😀",
            "a1",
        ]
    ),
    max_size=6,
).map("".join)
CONTENTS = st.one_of(st.text(max_size=30), PIECES)


@settings(max_examples=100, deadline=None)
@given(contents=st.lists(CONTENTS, min_size=2, max_size=5), name=st.sampled_from(list(FAMILIES)))
def test_ids_equal_the_servers_for_any_conversation_in_any_template(contents: list[str], name: str) -> None:
    row = talk(*contents)
    (encoded,) = ENCODERS[name].encode([row])
    served = FAMILIES[name].apply_chat_template(
        list(row.messages), sanitize_control_tokens=True, return_dict=False
    )
    assert encoded.ids == served


@settings(max_examples=100, deadline=None)
@given(contents=st.lists(CONTENTS, min_size=2, max_size=6), name=st.sampled_from(list(FAMILIES)))
def test_trained_spans_decode_to_the_replies_for_any_conversation(contents: list[str], name: str) -> None:
    # A reply that begins with a blank may share its first token with the header, and the header is not trained on.
    contents = [f"x{content}".replace("\U000f0000", "") for content in contents]
    (encoded,) = ENCODERS[name].encode([talk(*contents)])
    ends = ENDS[name]
    assert [span.removesuffix(ends).strip() for span in spans(name, encoded)] == [
        content.strip() for content in contents[1::2]
    ]


@pytest.mark.parametrize("name", FAMILIES)
def test_23_a_cut_row_keeps_the_mask_of_what_is_left(name: str) -> None:
    whole, shorter = ENCODERS[name].encode([talk("Hi", "One two.", "And", "More."), talk("Hi", "One two.")])
    count = len(shorter.ids)
    assert (whole.ids[:count], whole.trained[:count]) == (shorter.ids, shorter.trained)


def test_messages_that_are_not_to_be_trained_on_are_left_out_and_weights_kept() -> None:
    row = talk("Hi", "Wrong.", "No.", "Right.")
    marked = Conversation(row.messages, weight=0.5, train=(False, False, False, True))
    (encoded,) = ENCODERS["ours"].encode([marked])
    assert spans("ours", encoded) == ["Right.<|im_end|>"]
    assert encoded.weight == 0.5


def test_documents_begin_as_the_tokenizer_begins_text() -> None:
    for name, bos in (("ours", None), ("headers", "<|begin_of_text|>")):
        (encoded,) = ENCODERS[name].encode([Text("The end.")])
        assert FAMILIES[name].decode(encoded.ids) == (bos or "") + "The end."


def test_documents_are_parted_by_end_of_text_or_else_by_the_eos_token() -> None:
    ids = {name: FAMILIES[name].convert_ids_to_tokens(each.end_of_text) for name, each in ENCODERS.items()}
    assert ids == {
        "ours": "<|endoftext|>",
        "chatml": "<|endoftext|>",
        "headers": "<|eot_id|>",
        "brackets": "</s>",
    }


def test_a_reply_ends_at_the_turns_end_the_eos_token_and_what_the_model_directory_names(
    tmp_path: Path,
) -> None:
    tokenizer = byte_level(HEADERS, (*HEADER_TOKENS, "<|eom_id|>"), bos="<|begin_of_text|>", eos="<|eot_id|>")
    end, other = tokenizer.convert_tokens_to_ids(["<|eot_id|>", "<|eom_id|>"])
    assert Encoder(tokenizer).end_ids == {end}
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [end, other]}))
    assert Encoder(PreTrainedTokenizerFast.from_pretrained(tmp_path)).end_ids == {end, other}


def test_the_pad_token_may_be_missing_or_be_the_eos_token() -> None:
    tokenizer = byte_level(CHATML, CONTROL_TOKENS, bos=None, eos="<|im_end|>")
    assert Encoder(tokenizer).pad_id == tokenizer.convert_tokens_to_ids("<|endoftext|>")
    tokenizer.pad_token = "<|im_end|>"
    assert Encoder(tokenizer).pad_id == Encoder(tokenizer).turn_end


def test_decoding_leaves_special_tokens_out() -> None:
    for name, encoder in ENCODERS.items():
        run = next(trained_runs(encoder.encode([talk("Hi", "Grüße, you .")])[0]))
        assert encoder.decode(run).strip() == "Grüße, you .", name


def with_template(template: str) -> PreTrainedTokenizerFast:
    return byte_level(template, HEADER_TOKENS, bos="<|begin_of_text|>", eos="<|eot_id|>")


def test_a_template_without_blocks_is_announced_once(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = with_template(HEADERS)
    tokenizer.name_or_path = "a model without blocks"
    with caplog.at_level(logging.WARNING):
        Encoder(tokenizer)
        Encoder(tokenizer)
    assert [record.getMessage().count("no {% generation %} block") for record in caplog.records] == [1]


BLOCK = "{% generation %}{{ m['content'] + '<|eot_id|>' }}{% endgeneration %}"


def blocks(reply: str) -> str:
    return (
        "{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n' }}"
        "{% if m['role'] == 'assistant' %}" + reply + "{% else %}{{ m['content'] + '<|eot_id|>' }}{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n' }}{% endif %}"
    )


@pytest.mark.parametrize(
    "reply",
    [
        BLOCK,
        BLOCK.replace("{% endgeneration %}", " {% endgeneration %}"),
        "{% generation %}{{ m['content'] }}{% endgeneration %}<|eot_id|>",
    ],
    ids=["exact", "space before the block's end", "end token behind the block"],
)
def test_wherever_a_block_ends_the_loss_ends_with_the_end_token(reply: str) -> None:
    tokenizer = with_template(blocks(reply))
    (encoded,) = Encoder(tokenizer).encode([talk("Hi", "One.", "And?", "Two.")])
    assert [tokenizer.decode(run) for run in trained_runs(encoded)] == ["One.<|eot_id|>", "Two.<|eot_id|>"]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (blocks("{{ m['content'] }}{% generation %}{{ '<|eot_id|>' }}{% endgeneration %}"), "would fall on"),
        (
            blocks("{{ m['content'] + '<|eot_id|>' }}{% generation %}{% endgeneration %}"),
            "ends a reply without",
        ),
        (blocks("{{ m['content'] }}\n{% generation %}{% endgeneration %}"), "no special token after a reply"),
        (
            blocks("{% if loop.last %}" + BLOCK + "{% else %}{{ m['content'] }}{% endif %}"),
            "marks 1 replies of 2",
        ),
        ("{{ bos_token }}" + HEADERS, "more than once"),
        (HEADERS.replace("in messages %}", "in messages[-2:] %}"), "drops the user's"),
        (HEADERS.replace("in messages %}", "in messages | reverse %}"), "moves the user's"),
        (
            HEADERS.replace("{{ '<|start_header_id|>assistant", "{{ '<|start_header_id|>bot"),
            "is not what a reply follows",
        ),
        (
            blocks(BLOCK).replace("id|>assistant<", "id|>bot<"),
            "generation prompt is not what a reply follows",
        ),
        (HEADERS.replace("m in messages %}", "m in messages %}{{ messages | length }}"), "when more follow"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}{{ nothing() }}", "cannot render"),
    ],
    ids=[
        "block behind the reply",
        "block behind the end",
        "no end token",
        "unmarked reply",
        "two beginnings",
        "dropped messages",
        "reversed messages",
        "another prompt",
        "another prompt beside blocks",
        "a count of messages",
        "broken",
    ],
)
def test_a_template_that_would_train_on_anything_else_is_refused(template: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Encoder(with_template(template))


def test_a_row_the_template_cannot_render_is_an_error_that_names_it() -> None:
    messages = talk("Hi", "Hello.").messages
    row = Conversation((*messages[:1], *messages), where="rows.jsonl line 3")
    with pytest.raises(DataError, match=r"rows\.jsonl line 3: .*roles must alternate"):
        ENCODERS["brackets"].encode([row])


def test_a_system_message_is_folded_into_the_first_question_where_a_template_has_no_such_role() -> None:
    encoder = ENCODERS["brackets"]
    (folded, asked) = encoder.encode(
        [talk("Why?", "So.", system="Be brief."), talk("Be brief.\n\nWhy?", "So.")]
    )
    assert folded == asked


LATE_SYSTEM = (
    "{% set system = messages[0]['content'] + '\n\n' if messages[0]['role'] == 'system' else '' %}"
    "{% set turns = messages[1:] if messages[0]['role'] == 'system' else messages %}"
    "{% for m in turns %}{% if m['role'] == 'user' %}"
    "{{ '<|start_header_id|>' + (system if loop.last else '') + m['content'] + '<|end_header_id|>' }}"
    "{% else %}{{ m['content'] + '<|eot_id|>' }}{% endif %}{% endfor %}"
)
"""In the manner of Mistral Nemo: what the system says stands before the last question."""


def test_a_system_message_that_a_template_moves_is_an_error_of_the_rows_that_have_one() -> None:
    encoder = Encoder(with_template(LATE_SYSTEM))
    plain = talk("Hi", "One.", "And?", "Two.")
    assert len(list(trained_runs(encoder.encode([plain])[0]))) == 2
    with pytest.raises(DataError, match=r"row 7: .*differently when more follow"):
        encoder.encode(
            [Conversation(talk("Hi", "One.", "And?", "Two.", system="Be brief.").messages, where="row 7")]
        )


def test_a_tokenizer_without_a_template_is_refused() -> None:
    tokenizer = with_template(HEADERS)
    tokenizer.chat_template = None
    with pytest.raises(ConfigurationError, match="no chat template"):
        Encoder(tokenizer)
