"""What a detector is: something that scores texts by label. It knows no policy; the panel asks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from turnwise_server.chat.refusal.policy_types import Stage
from turnwise_server.errors import TurnwiseError

MAX_SAMPLES: Final = 4
"""Most samples that a detector is asked about at once: a long text must not make others wait, nor miss a deadline."""

Scores: TypeAlias = Mapping[str, float]
"""How likely a text bears each label, 0..1, each label by itself."""


class DetectorError(TurnwiseError):
    """A detector could not score a text: overloaded, unreachable, or its answer cannot be read."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A piece of text to score."""

    text: str
    stage: Stage = "input"
    """Whether a client or the model wrote it."""
    question: str = ""
    """For a piece of a reply: what the user said last, for detectors that judge an exchange."""


class Detector(Protocol):
    """Scores samples. All of it belongs to the event loop; work that takes time is done elsewhere."""

    @property
    def id(self) -> str:
        """Its name in the policy."""
        ...

    @property
    def sha256(self) -> str | None:
        """The digest of its weights, for the audit; None if it has none."""
        ...

    @property
    def labels(self) -> frozenset[str]:
        """All labels it may give a score: OpenAI's names, Llama Guard's codes, or names of its own."""
        ...

    @property
    def thresholds(self) -> Scores:
        """The score from which each label counts, as the detector was calibrated; 0.5 for one that is absent."""
        ...

    async def score(self, samples: Sequence[Sample]) -> Sequence[Scores]:
        """Return the scores of each of at most `MAX_SAMPLES` samples, in their order. It may be cancelled.

        Raises:
            DetectorError: it cannot score them now.
        """
        ...

    async def close(self) -> None:
        """Free what it holds. Its thread or connections are gone when this returns."""
        ...
