"""Samples answers from a finished checkpoint, to judge them or to have them ranked."""

from collections.abc import Sequence
from pathlib import Path

from turnwise_training.chat import Encoder, load_tokenizer
from turnwise_training.config import Sampling
from turnwise_training.data import Prompt
from turnwise_training.episodes import Episode
from turnwise_training.models import load_model
from turnwise_training.parallel import Parallel
from turnwise_training.rollout import TransformersEngine, rollout_key


class Sampler:
    """A checkpoint that answers prompts; processes share the work and each gets all answers."""

    def __init__(self, folder: Path, settings: Sampling, parallel: Parallel) -> None:
        self.encoder = Encoder(load_tokenizer(folder))
        self.model = load_model(folder)
        parallel.place(self.model)
        self._settings = settings
        self._parallel = parallel
        self._engine = TransformersEngine(
            self.model,
            parallel,
            end_ids=self.encoder.end_ids,
            pad_id=self.encoder.pad_id,
            batch=settings.batch,
            precision=settings.precision,
        )

    def answer(self, prompts: Sequence[Prompt], *, answers: int = 1, seed: int) -> list[Episode]:
        """Return so many answers to each prompt, those to one prompt together; the seed and their place fix them."""
        asked = [
            (prompt, self.encoder.prompt_ids(prompt.prompt), rollout_key(seed, row, number))
            for row, prompt in enumerate(prompts)
            for number in range(answers)
        ]
        samples = self._parallel.spread(
            asked,
            lambda part: self._engine.sample(
                [ids for _, ids, _ in part],
                [key for _, _, key in part],
                max_new_tokens=self._settings.max_new_tokens,
                temperature=self._settings.temperature,
            ),
        )
        return [
            Episode(prompt, ids, sample, self.encoder.decode(sample.ids))
            for (prompt, ids, _), sample in zip(asked, samples, strict=True)
        ]
