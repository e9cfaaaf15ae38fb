"""Asks the model of an OpenAI-compatible server, many questions at a time."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import httpx2

from turnwise_training.errors import RewardError
from turnwise_training.http_reward import FIRST_PAUSE_S, TIMEOUT_S, ask

CONCURRENT_REQUESTS = 8


def key_headers() -> dict[str, str]:
    """Return the header with the key in the environment variable OPENAI_API_KEY; without one, none."""
    key = os.environ.get("OPENAI_API_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}


class ChatServer:
    """The first model that a server lists. A key in the environment variable OPENAI_API_KEY is sent to it."""

    def __init__(self, url: str, *, first_pause_s: float = FIRST_PAUSE_S) -> None:
        """Take the base URL, such as http://127.0.0.1:8000/v1."""
        self.url = url.rstrip("/")
        self._first_pause_s = first_pause_s

    def choices(self, bodies: Sequence[Mapping[str, object]]) -> list[dict[str, Any]]:
        """Return the first choice that each request of a chat completion is answered with, in order.

        `bodies` lack the model alone. Raises RewardError where the server lists no model or answers no completion.
        """
        model = self.model_name
        with self._client() as client, ThreadPoolExecutor(CONCURRENT_REQUESTS) as pool:
            return list(pool.map(lambda body: self._choice(client, {"model": model, **body}), bodies))

    @cached_property
    def model_name(self) -> str:
        """The first model that the server lists; raises RewardError where there is none."""
        url = f"{self.url}/models"
        with self._client() as client:
            answer = ask(client, "GET", url, first_pause_s=self._first_pause_s)
        match answer:
            case {"data": [{"id": str(name)}, *_]}:
                return name
        raise RewardError(f"{url} lists no model: {answer!r:.200}")

    def _client(self) -> httpx2.Client:
        return httpx2.Client(timeout=TIMEOUT_S, headers=key_headers())

    def _choice(self, client: httpx2.Client, body: dict[str, object]) -> dict[str, Any]:
        url = f"{self.url}/chat/completions"
        answer = ask(client, "POST", url, body, first_pause_s=self._first_pause_s)
        match answer:
            case {"choices": [{"message": {"content": str()}} as choice, *_]}:
                return dict(choice)
        raise RewardError(f"{url} answered no chat completion: {answer!r:.200}")
