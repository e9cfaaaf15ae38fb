"""Asks another program over HTTP: JSON out, JSON back, tried again where the network or the server failed."""

import time
from collections.abc import Sequence

import httpx2

from turnwise_training.episodes import Episode
from turnwise_training.errors import RewardError

TIMEOUT_S = 120.0
ATTEMPTS = 5
FIRST_PAUSE_S = 0.5
"""Doubled after every attempt."""
EPISODES_PER_REQUEST = 64


class HttpReward:
    """The scores of a server: POST {"episodes": [{"prompt", "reply", "columns"}]} gives {"scores": [float]}."""

    def __init__(self, url: str, *, first_pause_s: float = FIRST_PAUSE_S) -> None:
        self._url = url
        self._first_pause_s = first_pause_s

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return the server's scores; raises RewardError where it gives none or another number of them."""
        scores: list[float] = []
        with httpx2.Client(timeout=TIMEOUT_S) as client:
            for start in range(0, len(episodes), EPISODES_PER_REQUEST):
                part = episodes[start : start + EPISODES_PER_REQUEST]
                body = {"episodes": [_as_json(episode) for episode in part]}
                answer = ask(client, "POST", self._url, body, first_pause_s=self._first_pause_s)
                scores += _read_scores(answer, len(part), self._url)
        return scores


def _as_json(episode: Episode) -> dict[str, object]:
    return {
        "prompt": list(episode.prompt.prompt),
        "reply": episode.reply,
        "columns": episode.prompt.columns,
    }


def _read_scores(answer: object, count: int, url: str) -> list[float]:
    scores = answer.get("scores") if isinstance(answer, dict) else None
    if not isinstance(scores, list) or not all(type(score) in (int, float) for score in scores):
        raise RewardError(f'{url} must answer {{"scores": [numbers]}}, not {answer!r:.200}')
    if len(scores) != count:
        raise RewardError(f"{url} gave {len(scores)} scores to {count} episodes")
    return [float(score) for score in scores]


def ask(
    client: httpx2.Client,
    method: str,
    url: str,
    body: object = None,
    *,
    first_pause_s: float = FIRST_PAUSE_S,
) -> object:
    """Return the JSON that a server answers, asking again while it cannot be reached or fails (429 and 5xx).

    Raises RewardError that says what the last of the attempts met.
    """
    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(first_pause_s * 2 ** (attempt - 1))
        try:
            response = client.request(method, url, json=body)
        except httpx2.TransportError as error:
            problem = str(error) or type(error).__name__
            continue
        if response.status_code != 429 and response.status_code < 500:
            return _read_json(response, url)
        problem = f"status {response.status_code}: {response.text[:200]}"
    raise RewardError(f"{url} gave no answer in {ATTEMPTS} attempts; the last met {problem}")


def _read_json(response: httpx2.Response, url: str) -> object:
    if not response.is_success:
        raise RewardError(f"{url} answered status {response.status_code}: {response.text[:200]}")
    try:
        answer: object = response.json()
    except ValueError as error:
        raise RewardError(f"{url} answered no JSON: {response.text[:200]!r}") from error
    return answer
