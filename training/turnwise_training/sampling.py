"""Samples answers of a model to judge them or to have them ranked."""

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel

from turnwise_training.chat import Encoder, load_tokenizer
from turnwise_training.config import Sampling
from turnwise_training.data import Prompt
from turnwise_training.episodes import Episode
from turnwise_training.models import load_model
from turnwise_training.parallel import Parallel
from turnwise_training.prompts import EncodedPrompt
from turnwise_training.rollout import TransformersEngine, roll_out, rollout_key


class Sampler:
    """A model that answers prompts; processes share the work and each gets all answers."""

    def __init__(
        self, model: PreTrainedModel, encoder: Encoder, settings: Sampling, parallel: Parallel
    ) -> None:
        self.encoder = encoder
        self.model = model
        self._settings = settings
        self._parallel = parallel
        self._engine = TransformersEngine(
            model,
            parallel,
            end_ids=encoder.end_ids,
            pad_id=encoder.pad_id,
            batch=settings.batch,
            precision=settings.precision,
        )

    @classmethod
    def load(cls, folder: Path, settings: Sampling, parallel: Parallel) -> "Sampler":
        """Return a sampler of a finished checkpoint."""
        model = load_model(folder)
        parallel.place(model)
        return cls(model, Encoder(load_tokenizer(folder)), settings, parallel)

    def refresh(self) -> None:
        """Take over the model's weights after an update."""
        self._engine.refresh(self.model)

    def answer(self, prompts: Sequence[Prompt], *, answers: int = 1, seed: int) -> list[Episode]:
        """Return so many answers to each prompt, those to one prompt together; the seed and their place fix them."""
        encoded = [EncodedPrompt(prompt, self.encoder.prompt_ids(prompt.prompt)) for prompt in prompts]
        asked = [
            (prompt, rollout_key(seed, row, number))
            for row, prompt in enumerate(encoded)
            for number in range(answers)
        ]
        return roll_out(
            self._engine,
            asked,
            self.encoder,
            self._parallel,
            max_new_tokens=self._settings.max_new_tokens,
            temperature=self._settings.temperature,
        )
