"""The detector of kind `http`: any server that has OpenAI's `POST /v1/moderations`.

What it answers is believed only where all of it can be read; no error names a text, an answer or the key.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import httpx2
from pydantic_core import from_json

from turnwise_server.chat.refusal.policy_stages import Detector as DetectorRule
from turnwise_server.chat.refusal.policy_types import OPENAI_CATEGORIES
from turnwise_server.errors import ConfigurationError
from turnwise_server.moderation.detector import DetectorError, Sample, Scores

MAX_ANSWER_BYTES: Final = 1 << 20
"""Sixteen results of OpenAI's take about 25 kB."""

_CONNECTION_DIED = (
    httpx2.ReadError,
    httpx2.WriteError,
    httpx2.CloseError,
    httpx2.RemoteProtocolError,
)
"""What a connection raises that the server closed while nobody used it."""


class HttpDetector:
    """Asks one server about all samples in one request; a `Detector`. It passes over labels unknown to OpenAI."""

    sha256: Final = None
    """Nobody here knows the weights of another server."""
    labels: Final = frozenset[str](OPENAI_CATEGORIES)
    thresholds: Final[Scores] = {}
    """OpenAI's answers do not tell theirs."""

    def __init__(
        self,
        id: str,  # noqa: A002 (the policy's key)
        *,
        url: str,
        model: str | None = None,
        api_key: str | None = None,
        timeout_s: float,
    ) -> None:
        """Take the base address, such as http://127.0.0.1:9000/v1, and how long each step of a request may take."""
        self.id = id
        self._url = f"{url.rstrip('/')}/moderations"
        self._options = {} if model is None else {"model": model}
        key = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        self._client = httpx2.AsyncClient(
            headers={"content-type": "application/json", "accept-encoding": "identity", **key},
            timeout=timeout_s,
            follow_redirects=False,  # neither texts nor the key go where the policy does not say
            trust_env=False,
        )

    async def score(self, samples: Sequence[Sample]) -> Sequence[Scores]:
        """Return the server's scores of each sample.

        Raises:
            DetectorError: it cannot be reached, is too slow, refuses, or its answer cannot be read.
        """
        body = json.dumps({"input": [sample.text for sample in samples], **self._options}).encode()
        return read_answer(await self._ask(body), len(samples))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _ask(self, body: bytes) -> bytes:
        if self._client.is_closed:
            raise DetectorError(f"{self.id} is closed")
        try:
            try:
                return await self._exchange(body)
            except _CONNECTION_DIED:
                return await self._exchange(body)
        except httpx2.TimeoutException as error:
            raise DetectorError("the moderation server took too long") from error
        except httpx2.HTTPError as error:
            raise DetectorError(f"the moderation server cannot be asked: {type(error).__name__}") from error

    async def _exchange(self, body: bytes) -> bytes:
        async with self._client.stream("POST", self._url, content=body) as reply:
            if reply.status_code != httpx2.codes.OK:
                raise DetectorError(f"the moderation server answered with status {reply.status_code}")
            answer = bytearray()
            async for piece in reply.aiter_raw():
                answer += piece
                if len(answer) > MAX_ANSWER_BYTES:
                    raise DetectorError(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
            return bytes(answer)


def load_http_detector(rule: DetectorRule) -> HttpDetector:
    """Make the detector that the policy describes; nothing is asked yet.

    Raises:
        ConfigurationError: the address is none, the environment variable that holds the key is missing, or what it
            holds is no key.
    """
    assert rule.url is not None
    if not _is_base_address(rule.url):
        raise ConfigurationError(
            f"url: {rule.url!r} is no base address. Give one such as http://127.0.0.1:9000/v1, without a query."
        )
    return HttpDetector(
        rule.id,
        url=rule.url,
        model=rule.model,
        api_key=None if rule.api_key_env is None else _read_key(rule.api_key_env),
        timeout_s=rule.deadline_ms / 1000,
    )


def read_answer(answer: bytes, count: int) -> list[Scores]:
    """Return the scores of `count` results, each with all of OpenAI's names and no other.

    Raises:
        DetectorError: it is not that; the message quotes nothing of it.
    """
    try:
        content = from_json(answer, allow_inf_nan=False)
    except ValueError:
        raise DetectorError("the answer is not JSON") from None
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(results, list) or len(results) != count:
        raise DetectorError(f"the answer does not hold a list of {count} 'results'")
    return [_scores(result) for result in results]


def _scores(result: object) -> Scores:
    found = result.get("category_scores") if isinstance(result, dict) else None
    if not isinstance(found, dict):
        raise DetectorError("a result of the answer has no 'category_scores'")
    return {label: _score(found, label) for label in OPENAI_CATEGORIES}


def _score(found: Mapping[str, Any], label: str) -> float:
    score = found.get(label)
    if type(score) not in (int, float) or not 0 <= score <= 1:  # type: ignore[operator]
        raise DetectorError(f"a result of the answer has no score from 0 to 1 for {label!r}")
    return float(score)  # type: ignore[arg-type]


def _is_base_address(url: str) -> bool:
    try:
        address = httpx2.URL(url)
    except httpx2.InvalidURL:
        return False
    has_port = address.port is None or 0 < address.port < 65536
    return bool(address.host) and has_port and not (address.query or address.fragment)


def _read_key(variable: str) -> str:
    key = os.environ.get(variable, "")
    if not key:
        raise ConfigurationError(
            f"api_key_env: the environment variable {variable} is not set. Set it, or remove the key api_key_env."
        )
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigurationError(
            f"api_key_env: the environment variable {variable} holds a character that no key has, "
            "such as a space or the end of a line. Set it again."
        )
    return key
