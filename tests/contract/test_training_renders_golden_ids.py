"""Training renders the committed starter's golden conversations to the ids the server is held to."""

import json
from pathlib import Path

import pytest

from turnwise_training.chat import Encoder, load_tokenizer
from turnwise_training.data import Conversation

STARTER = Path(__file__).parents[2] / "models/starter"
GOLDEN = json.loads((Path(__file__).parent / "golden_render.json").read_text())
WHOLE = [case for case in GOLDEN if not case["add_generation_prompt"]]


@pytest.mark.parametrize("case", WHOLE, ids=[case["name"] for case in WHOLE])
def test_training_renders_the_golden_ids(case: dict[str, object]) -> None:
    messages = case["messages"]
    assert isinstance(messages, list)
    (encoded,) = Encoder(load_tokenizer(STARTER)).encode([Conversation(tuple(messages))])
    assert encoded.ids == case["ids"]


@pytest.mark.parametrize("case", GOLDEN, ids=[case["name"] for case in GOLDEN])
def test_the_tokenizer_alone_renders_the_golden_ids(case: dict[str, object]) -> None:
    ids = load_tokenizer(STARTER).apply_chat_template(
        case["messages"],
        add_generation_prompt=case["add_generation_prompt"],
        sanitize_control_tokens=True,
        return_dict=False,
    )
    assert ids == case["ids"]


def test_a_prompt_is_a_prefix_of_the_conversation_training_saw() -> None:
    tokenizer = load_tokenizer(STARTER)
    for case in WHOLE:
        messages = case["messages"]
        for index, message in enumerate(messages):
            if message["role"] == "assistant":
                prompt = tokenizer.apply_chat_template(
                    messages[:index],
                    add_generation_prompt=True,
                    sanitize_control_tokens=True,
                    return_dict=False,
                )
                assert case["ids"][: len(prompt)] == prompt
