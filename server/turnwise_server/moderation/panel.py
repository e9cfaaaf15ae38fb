"""Asks the policy's detectors about texts: all at once, each with its deadline, slow ones only where it is worth it.

A slow detector is asked about those samples that the one named in its `when` is unsure of, and judges them in its
place. Where it fails, the quick one's scores stand. Detectors in `shadow` are asked likewise, and decide nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import structlog

from turnwise_server.chat.refusal.policy import Policy
from turnwise_server.chat.refusal.policy_stages import Detector as DetectorRule
from turnwise_server.chat.refusal.policy_types import Stage
from turnwise_server.chat.refusal.verdict import Place
from turnwise_server.moderation.detector import MAX_SAMPLES, Detector, DetectorError, Sample, Scores
from turnwise_server.moderation.labels import Labels
from turnwise_server.moderation.readings import Reading, merge

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Asked:
    """What asking a detector came to, for audit and metrics."""

    detector: str
    sha256: str | None
    ms: float
    error: str | None = None
    """Why it gave no scores: "deadline" or "failed"."""


OnAsked = Callable[[Asked], None]

_Answers: TypeAlias = Mapping[int, Scores]
"""The scores of those samples that a detector was asked about, by index."""


class Panel:
    """The detectors of one policy, for one stage."""

    def __init__(self, policy: Policy, stage: Stage, detectors: Mapping[str, Detector]) -> None:
        """Take the detectors that the policy names, by id."""
        rules = [rule for rule in policy.detectors if stage in rule.stage]
        self._quick = [rule for rule in rules if rule.when is None]
        self._slow = [(rule, rule.when.unsure) for rule in rules if rule.when is not None]
        self._detectors = detectors
        self._shadow = frozenset(policy.shadow)
        self._labels = {rule.id: Labels(policy, stage, detectors[rule.id]) for rule in rules}

    @property
    def covered(self) -> frozenset[str]:
        """The categories that some detector of the stage can find."""
        return self._covered_by(self._labels)

    async def read(
        self, samples: Sequence[Sample], places: Sequence[Place], on_asked: OnAsked
    ) -> list[Reading]:
        """Return a reading of each sample, `places` saying where it comes from.

        A detector that fails raises nothing: what it should have found is `unchecked`.
        """
        everything = range(len(samples))
        given = await asyncio.gather(
            *(self._ask(rule, samples, everything, on_asked) for rule in self._quick)
        )
        quick = {rule.id: answers for rule, answers in zip(self._quick, given, strict=True)}
        given = await asyncio.gather(
            *(
                self._ask(rule, samples, self._unsure(first, quick, everything), on_asked)
                for rule, first in self._slow
            )
        )
        slow = {rule.id: answers for (rule, _), answers in zip(self._slow, given, strict=True)}
        unchecked = self._unchecked(quick, slow)
        return [
            merge((*self._readings(index, place, quick, slow), Reading(unchecked=unchecked)))
            for index, place in enumerate(places)
        ]

    def _covered_by(self, detectors: Iterable[str]) -> frozenset[str]:
        deciding = [each for each in detectors if each not in self._shadow]
        return frozenset[str]().union(*(self._labels[each].categories for each in deciding))

    def _unchecked(
        self, quick: Mapping[str, _Answers | None], slow: Mapping[str, _Answers | None]
    ) -> frozenset[str]:
        """Return the categories of the detectors that failed and that no slow one judged in their place."""
        missed: set[str] = set()
        for detector in (each for each, answers in quick.items() if answers is None):
            stand_ins = [
                rule.id for rule, first in self._slow if first == detector and slow[rule.id] is not None
            ]
            missed |= self._covered_by([detector]) - self._covered_by(stand_ins)
        return frozenset(missed)

    def _unsure(
        self, first: str, quick: Mapping[str, _Answers | None], everything: Sequence[int]
    ) -> Sequence[int]:
        """Return which samples the detector that was asked first is unsure of: all of them, if it gave no answers."""
        # It gives none where it failed, and where it does not judge this stage.
        if (answers := quick.get(first)) is None:
            return everything
        return [index for index, scores in answers.items() if self._labels[first].is_unsure(scores)]

    def _readings(
        self,
        index: int,
        place: Place,
        quick: Mapping[str, _Answers | None],
        slow: Mapping[str, _Answers | None],
    ) -> Iterator[Reading]:
        """Yield what each detector says of one sample."""
        replaced: dict[str, frozenset[str]] = {}
        for rule, first in self._slow:
            if rule.id not in self._shadow and index in (slow[rule.id] or {}):
                replaced[first] = replaced.get(first, frozenset()) | self._labels[rule.id].categories
        for detector, answers in (*quick.items(), *slow.items()):
            if answers is None or index not in answers:
                continue
            reading = self._labels[detector].read(
                answers[index], place, but=replaced.get(detector, frozenset())
            )
            yield _as_shadow(detector, reading) if detector in self._shadow else reading

    async def _ask(
        self, rule: DetectorRule, samples: Sequence[Sample], indices: Sequence[int], on_asked: OnAsked
    ) -> _Answers | None:
        """Return a detector's scores of the samples at `indices`, or None if it could not give them."""
        if not indices:
            return {}
        detector, began = self._detectors[rule.id], time.perf_counter()
        scores: list[Scores] = []
        error = None
        try:
            for start in range(0, len(indices), MAX_SAMPLES):
                async with asyncio.timeout(rule.deadline_ms / 1000):
                    scores += await detector.score(
                        [samples[index] for index in indices[start : start + MAX_SAMPLES]]
                    )
        except TimeoutError:
            error = "deadline"
        except DetectorError as failure:
            error = "failed"
            _log.warning("detector_failed", detector=rule.id, reason=str(failure))
        on_asked(Asked(rule.id, detector.sha256, (time.perf_counter() - began) * 1000, error))
        return None if error else dict(zip(indices, scores, strict=True))


def _as_shadow(detector: str, reading: Reading) -> Reading:
    return Reading(shadow={detector: reading.categories})
