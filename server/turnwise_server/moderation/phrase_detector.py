"""The detector of kind `phrases`: lists of plain words. It takes microseconds, so it runs on the event loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from turnwise_server.chat.refusal.phrases import PhraseMatcher
from turnwise_server.moderation.detector import Sample, Scores


class PhraseDetector:
    """Scores 1 for each category of which a phrase stands in the text, and 0 for the others."""

    def __init__(self, id: str, phrases: Mapping[str, Sequence[str]]) -> None:  # noqa: A002 (the policy's key)
        """Take the phrases of the policy, by category."""
        self._id = id
        self._matcher = PhraseMatcher(phrases)
        self._thresholds = dict.fromkeys(self._matcher.scores(""), 0.5)

    @property
    def id(self) -> str:
        """Its name in the policy."""
        return self._id

    @property
    def sha256(self) -> None:
        """It has no weights; the policy's digest covers the phrases."""
        return

    @property
    def labels(self) -> frozenset[str]:
        """The categories that have phrases."""
        return frozenset(self._thresholds)

    @property
    def thresholds(self) -> Scores:
        """One half for each label."""
        return self._thresholds

    async def score(self, samples: Sequence[Sample]) -> Sequence[Scores]:
        """Return 1.0 or 0.0 for every label of each sample."""
        return [self._matcher.scores(sample.text) for sample in samples]

    async def close(self) -> None:
        """Hold nothing, free nothing."""
