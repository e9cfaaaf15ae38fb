"""The server renders the committed starter's golden conversations to the ids that training is held to."""

import json
from pathlib import Path
from typing import Any

import pytest

from turnwise_server.chat.checkpoint_files import load_tokenizer
from turnwise_server.chat.messages import Conversation, Message
from turnwise_server.chat.template import ChatTemplate

STARTER = Path(__file__).parents[2] / "models/starter"
GOLDEN: list[dict[str, Any]] = json.loads((Path(__file__).parent / "golden_render.json").read_text())
PROMPTS = [case for case in GOLDEN if case["add_generation_prompt"]]
WHOLE = [case for case in GOLDEN if not case["add_generation_prompt"]]


@pytest.fixture(scope="module")
def template() -> ChatTemplate:
    return ChatTemplate(load_tokenizer(str(STARTER)), source="starter")


def prompt_ids(template: ChatTemplate, messages: list[dict[str, Any]]) -> list[int]:
    """Render as the server does, but for its merging of neighbours: training sees rows as they are."""
    system = [message["content"] for message in messages if message["role"] == "system"]
    turns = tuple(Message(m["role"], m["content"]) for m in messages if m["role"] != "system")
    return list(template.render(Conversation("".join(system) if system else None, turns)))


@pytest.mark.parametrize("case", PROMPTS, ids=[case["name"] for case in PROMPTS])
def test_the_server_renders_the_golden_prompts(template: ChatTemplate, case: dict[str, Any]) -> None:
    assert prompt_ids(template, case["messages"]) == case["ids"]


@pytest.mark.parametrize("case", WHOLE, ids=[case["name"] for case in WHOLE])
def test_the_prompt_of_every_reply_begins_the_conversation_training_saw(
    template: ChatTemplate, case: dict[str, Any]
) -> None:
    messages = case["messages"]
    replies = [index for index, message in enumerate(messages) if message["role"] == "assistant" and index]
    assert replies
    for index in replies:
        prompt = prompt_ids(template, messages[:index])
        assert case["ids"][: len(prompt)] == prompt
