"""The application of `fake_server` behind the refusal layer, with a detector that knows made-up words only.

So tests show what the layer does without a harmful text in them: a `zorb` stands for a weapon, a `glim` for despair.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.fake_server import FakeServer, default_policy, fake_server
from turnwise_server.chat.refusal.policy_holder import PolicyHolder
from turnwise_server.chat.refusal.policy_stages import Detector as DetectorRule
from turnwise_server.moderation.audit.log import AuditLog
from turnwise_server.moderation.detector import Detector, DetectorError, Sample, Scores
from turnwise_server.moderation.enforcement import Enforcement
from turnwise_server.moderation.phrase_detector import PhraseDetector

WORDS = {"illicit/violent": "zorb", "self-harm/intent": "glim", "sexual/minors": "quop", "harassment": "dwim"}
"""The label that each made-up word has; it scores 0.9 where it stands, whatever its case."""


@dataclass
class WordDetector:
    """Finds the made-up words; `fails` and `delay_s` make it a bad one."""

    id: str
    words: Mapping[str, str] = field(default_factory=lambda: WORDS)
    delay_s: float = 0.0
    fails: bool = False
    seen: list[Sample] = field(default_factory=list)
    """What it was asked about."""
    sha256: str | None = "0" * 64
    is_closed: bool = False

    @property
    def labels(self) -> frozenset[str]:
        return frozenset(self.words)

    @property
    def thresholds(self) -> Scores:
        return dict.fromkeys(self.words, 0.5)

    async def score(self, samples: Sequence[Sample]) -> Sequence[Scores]:
        self.seen += samples
        await asyncio.sleep(self.delay_s)
        if self.fails:
            raise DetectorError("it does not work")
        return [
            {label: 0.9 if word in sample.text.casefold() else 0.02 for label, word in self.words.items()}
            for sample in samples
        ]

    async def close(self) -> None:
        self.is_closed = True


def stub_detectors(detector: WordDetector) -> Callable[[DetectorRule], Detector]:
    """Return what makes the detectors of a policy: lists of phrases as they are, `detector` for all others."""

    def make(rule: DetectorRule) -> Detector:
        if rule.kind == "phrases":
            return PhraseDetector(rule.id, rule.phrases or {})
        detector.id = rule.id
        return detector

    return make


@asynccontextmanager
async def guarded_server(
    *replies: str,
    policy: Path | None = None,
    detector: WordDetector | None = None,
    audit: AuditLog | None = None,
    **options: Any,
) -> AsyncIterator[FakeServer]:
    """Serve the replies behind the layer of a policy file (the one that ships, if none is given)."""
    enforcement = Enforcement(audit, make=stub_detectors(detector or WordDetector("words")))
    holder = PolicyHolder(policy) if policy else default_policy()
    if policy:
        holder.enact = enforcement.enact
    enforcement.enact(holder.current)
    async with fake_server(*replies, policy=holder, enforcement=enforcement, **options) as server:
        yield server
