"""What a guarded chat completion comes to, asked for whole and as a stream, which have to agree."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from support.fake_server import FakeServer

Json = dict[str, Any]


@dataclass(slots=True)
class Answer:
    """One choice."""

    shown: str = ""
    """What its client saw of the model's words before it ended, content and arguments of calls."""
    said: str = ""
    """What stands there in the end: the reply, or the refusal."""
    refused: str = ""
    """The stage and the category of the refusal, "" for none."""
    finish_reason: str = ""
    tokens: list[str] = field(default_factory=list)
    """What its logprobs tell."""
    shown_after: str = ""
    """Words of the model that came behind the refusal or the finish; there must be none."""

    @property
    def verdict(self) -> tuple[str, str, str]:
        """What whole and streamed replies have to agree in."""
        return self.refused, self.said, self.finish_reason


async def ask(server: FakeServer, messages: Sequence[Json] | None = None, **body: Any) -> Answer:
    """Ask for a whole reply and for a stream, hold them against each other, and return what the stream showed."""
    (answer,) = await ask_all(server, messages, **body)
    return answer


async def ask_all(server: FakeServer, messages: Sequence[Json] | None = None, **body: Any) -> list[Answer]:
    """Return every choice; see `ask`."""
    if messages is not None:
        body["messages"] = list(messages)
    whole = await server.chat(**body)
    streamed = await server.chat(stream=True, **body)
    assert (whole.status_code, streamed.status_code) == (200, 200), whole.text + streamed.text
    expected = [_whole_answer(choice) for choice in whole.json()["choices"]]
    answers = _streamed_answers(streamed, len(expected))
    assert [answer.verdict for answer in answers] == [answer.verdict for answer in expected]
    assert all(answer.tokens == [] for answer in expected if answer.refused)
    assert not any(answer.shown_after for answer in answers)
    return answers


def user(text: str) -> list[Json]:
    """Return a conversation of one message."""
    return [{"role": "user", "content": text}]


def _whole_answer(choice: Json) -> Answer:
    message = choice["message"]
    calls = [call["function"]["arguments"] for call in message.get("tool_calls") or []]
    said = "".join([message["content"] or message["refusal"] or "", *calls])
    tokens = [each["token"] for each in (choice.get("logprobs") or {}).get("content") or []]
    return Answer("", said, _signal(choice), choice["finish_reason"], tokens)


def _streamed_answers(reply: httpx2.Response, n: int) -> list[Answer]:
    *frames, done, end = reply.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    answers = [Answer() for _ in range(n)]
    for frame in frames:
        for choice in json.loads(frame.removeprefix("data: "))["choices"]:
            _take(answers[choice["index"]], choice)
    return answers


def _take(answer: Answer, choice: Json) -> None:
    delta = choice["delta"]
    arguments = [call["function"]["arguments"] for call in delta.get("tool_calls", [])]
    words = "".join([delta.get("content") or "", *arguments])
    if not answer.refused and (signal := _signal(choice)):
        answer.refused = signal
        answer.said = delta.get("refusal") or words
    elif answer.refused or answer.finish_reason:
        answer.shown_after += words
    else:
        answer.shown += words
        answer.said = answer.shown
    answer.tokens += [each["token"] for each in (choice.get("logprobs") or {}).get("content", [])]
    answer.finish_reason = choice["finish_reason"] or answer.finish_reason


def _signal(choice: Json) -> str:
    signal = choice.get("x_refusal")
    return f"{signal['stage']}/{signal['category']}" if signal else ""
