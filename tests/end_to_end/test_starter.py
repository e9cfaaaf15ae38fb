"""The model that ships, served as it ships: the promises of the README, sampled with fixed seeds."""

from collections.abc import Iterator

import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

from support.live_server import LiveServer, live_server

NAMES = (
    "Ottoline",
    "Casimir",
    "Rosalba",
    "Thaddeus",
    "Yolanda",
    "Benedict",
    "Marguerite",
    "Lorenzo",
    "Sunniva",
    "Hugo",
)
GREETINGS = ("Hello!", "Hi there.", "Good morning!", "Hey, how are you?")


@pytest.fixture(scope="module")
def starter() -> Iterator[LiveServer]:
    with live_server(None) as running:
        yield running


@pytest.fixture
def client(starter: LiveServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{starter.url}/v1", api_key="unused", max_retries=0) as made:
        yield made


def reply(client: OpenAI, messages: list[ChatCompletionMessageParam], seed: int) -> tuple[str, str]:
    """Text and finish reason of a streamed reply."""
    text, reason = "", ""
    stream = client.chat.completions.create(
        model="test", messages=messages, seed=seed, max_tokens=128, stream=True
    )
    for chunk in stream:
        text += chunk.choices[0].delta.content or ""
        reason = chunk.choices[0].finish_reason or reason
    return text, reason


def test_it_greets_in_whole_sentences_and_ends_its_turn(client: OpenAI) -> None:
    for seed, greeting in enumerate(GREETINGS):
        text, reason = reply(client, [{"role": "user", "content": greeting}], seed)
        assert reason == "stop"
        assert text[:1].isupper()
        assert text.rstrip()[-1] in ".!?"


def test_it_remembers_a_name_across_a_turn_in_most_tries(client: OpenAI) -> None:
    remembered = 0
    for seed, name in enumerate(NAMES):
        messages: list[ChatCompletionMessageParam] = [
            {"role": "user", "content": f"Hello! My name is {name}."}
        ]
        answer, _ = reply(client, messages, seed)
        messages += [
            {"role": "assistant", "content": answer},
            {"role": "user", "content": "What is my name?"},
        ]
        remembered += name in reply(client, messages, seed)[0]
    assert remembered > len(NAMES) // 2
