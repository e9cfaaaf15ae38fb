"""The detector of kind `phrases`: lists of plain words. It takes microseconds, so it runs on the event loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from turnwise_server.chat.refusal.phrases import PhraseMatcher
from turnwise_server.moderation.detector import Sample, Scores


class PhraseDetector:
    """Scores 1 for each category of which a phrase stands in the text, and 0 for the others; a `Detector`."""

    sha256: Final = None
    """It has no weights; the policy's digest covers the phrases."""

    def __init__(self, id: str, phrases: Mapping[str, Sequence[str]]) -> None:  # noqa: A002 (the policy's key)
        """Take the phrases of the policy, by category."""
        self._matcher = PhraseMatcher(phrases)
        self.id = id
        self.thresholds: Scores = dict.fromkeys(self._matcher.scores(""), 0.5)
        self.labels = frozenset(self.thresholds)

    async def score(self, samples: Sequence[Sample]) -> Sequence[Scores]:
        """Return 1.0 or 0.0 for every label of each sample."""
        return [self._matcher.scores(sample.text) for sample in samples]

    async def close(self) -> None:
        """Do nothing: it holds nothing."""
