"""The detector of kind `hf_causal_guard`: a language model that answers "safe", or "unsafe" and which hazards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeAlias

from turnwise_server.chat.checkpoint_files import load_tokenizer
from turnwise_server.chat.refusal.policy_stages import Detector as DetectorRule
from turnwise_server.moderation.detector import DetectorError, Sample, Scores
from turnwise_server.moderation.guard_files import load_guard_model, verify_guard
from turnwise_server.moderation.guard_model import GuardModel
from turnwise_server.moderation.worker import BatchWorker

_Answer: TypeAlias = Scores | DetectorError


class CausalGuard:
    """A `Detector` around a guard: one text at a time, in a thread of its own."""

    thresholds: Final[Scores] = {}
    """"unsafe" counts from one half, where it is the likelier answer."""

    def __init__(self, id: str, model: GuardModel, *, sha256: str) -> None:  # noqa: A002 (the policy's key)
        """Take a loaded guard and the digest of its weights."""
        self.id = id
        self.sha256 = sha256
        self.labels = model.codes
        self._model = model
        self._worker: BatchWorker[Sample, _Answer] = BatchWorker(
            self._run, name=f"detector-{id}", max_batch=1
        )

    async def score(self, samples: Sequence[Sample]) -> Sequence[Scores]:
        """Return the hazards of each sample with the probability of "unsafe".

        Raises:
            DetectorError: too much waits, a text is too long, or an answer cannot be read.
        """
        scores: list[Scores] = []
        for answer in await self._worker.submit(samples):
            if isinstance(answer, DetectorError):
                raise answer
            scores.append(answer)
        return scores

    async def close(self) -> None:
        """End the thread."""
        await self._worker.close()

    def _run(self, samples: Sequence[Sample]) -> list[_Answer]:
        return [self._judge(sample) for sample in samples]

    def _judge(self, sample: Sample) -> _Answer:
        try:
            return self._model.judge(sample)
        except DetectorError as error:
            return error


def load_causal_guard(rule: DetectorRule) -> CausalGuard:
    """Load the guard that the policy describes, which may take minutes.

    Raises:
        ConfigurationError: the directory is no guard, or not the one that was meant.
    """
    path = Path(rule.path or "").expanduser()
    sha256 = verify_guard(path, sha256=rule.sha256)
    model = GuardModel(load_guard_model(path), load_tokenizer(str(path)), source=path)
    return CausalGuard(rule.id, model, sha256=sha256)
