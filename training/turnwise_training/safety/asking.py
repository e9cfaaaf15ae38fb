"""Asks a running server about texts, a few at a time, each of them once. It knows neither labels nor figures."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

import httpx2

from turnwise_training.chat_server import ChatServer, key_headers
from turnwise_training.safety.outcomes import Outcome, of_moderation, of_reply

CONCURRENT_REQUESTS: Final = 4
TIMEOUT_S: Final = 60.0
MAX_TOKENS: Final = 32
"""Enough for a reply to be checked while it is written, and to open with a refusal in words."""

_Body = Mapping[str, object]


class MeasuredServer:
    """A server with OpenAI's API. A key in the environment variable OPENAI_API_KEY is sent to it."""

    def __init__(self, url: str, *, model: str | None = None) -> None:
        """Take the base URL, such as http://127.0.0.1:8000/v1, and a model; without one, the first it lists."""
        self.url = url.rstrip("/")
        self._model = model

    def replies(self, texts: Sequence[str]) -> list[Outcome]:
        """Return what becomes of each text as the only message of a chat; a request that fails is an error.

        Raises RewardError where no model is given and none is listed.
        """
        model = self._model or ChatServer(self.url).model_name
        options = {"model": model, "max_tokens": MAX_TOKENS, "temperature": 0}
        bodies = [{**options, "messages": [{"role": "user", "content": text}]} for text in texts]
        return self._ask("chat/completions", bodies, _reply_outcome)

    def moderations(self, texts: Sequence[str]) -> list[Outcome]:
        """Return what `/v1/moderations` says of each text; a request that fails is an error."""
        return self._ask("moderations", [{"input": text} for text in texts], _moderation_outcome)

    def _ask(
        self, path: str, bodies: Sequence[_Body], read: Callable[[httpx2.Response], Outcome]
    ) -> list[Outcome]:
        with (
            httpx2.Client(timeout=TIMEOUT_S, headers=key_headers()) as client,
            ThreadPoolExecutor(CONCURRENT_REQUESTS) as pool,
        ):
            return list(pool.map(partial(_outcome, client, f"{self.url}/{path}", read), bodies))


def _outcome(
    client: httpx2.Client, url: str, read: Callable[[httpx2.Response], Outcome], body: _Body
) -> Outcome:
    try:
        return read(client.post(url, json=body))
    except httpx2.HTTPError as error:
        return Outcome(error=type(error).__name__)


def _reply_outcome(response: httpx2.Response) -> Outcome:
    return of_reply(response.status_code, response.headers, _json(response))


def _moderation_outcome(response: httpx2.Response) -> Outcome:
    return of_moderation(response.status_code, _json(response))


def _json(response: httpx2.Response) -> object:
    try:
        body: object = response.json()
    except ValueError:
        return None
    return body
