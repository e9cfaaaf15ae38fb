"""The settings of `turnwise-train safety`, with the defaults the shipped detector was trained by."""

from dataclasses import dataclass
from pathlib import Path

from turnwise_training.errors import ConfigurationError
from turnwise_training.safety.rows import Licences


@dataclass(frozen=True)
class OrdinaryFile:
    """A file of conversations or texts whose openings are harmless."""

    file: str
    """Path under `data`."""
    licence: str
    rows: int = 1000
    """Openings taken at most, at random."""


@dataclass(frozen=True)
class EncoderSettings:
    """How the encoder is fine-tuned."""

    path: Path
    """Directory of a BERT encoder, or of a detector to go on from: config.json, model.safetensors, tokenizer.json."""
    kept: float = 0.0
    """Share of the weights it began with that stays in the mean of those and the trained ones."""
    epochs: int = 2
    learning_rate: float = 1e-4
    batch_size: int = 32
    max_length: int = 128
    """Tokens of a text that training reads."""
    minutes: float = 20.0
    """Wall clock after which the rest of the schedule is compressed into the decay that remains."""


@dataclass(frozen=True)
class LinearSettings:
    """How the linear model over hashed n-grams is trained."""

    buckets: int = 65536
    epochs: int = 6
    learning_rate: float = 0.02
    weight_decay: float = 1e-5


@dataclass(frozen=True)
class SafetyConfig:
    """Sources by role: every source that is neither `development` nor `held_out` is trained on if permitted."""

    output: Path
    data: Path
    """Folder that `labelled` and the files of `ordinary` lie under."""
    labelled: tuple[str, ...]
    """Files of rows with prompt, label, category, source and license."""
    ordinary: dict[str, OrdinaryFile]
    encoder: EncoderSettings
    development: tuple[str, ...]
    """Sources for the temperature and the thresholds; never trained on."""
    held_out: tuple[str, ...]
    """Sources for the final figures alone."""
    excluded: tuple[str, ...] = ()
    """Sources that training leaves out although their licence field would let them in."""
    linear: LinearSettings = LinearSettings()
    licences: Licences = "permissive"
    """`all` trains on rows of any licence: for experiments, whose weights must not ship."""
    most_each: int = 2500
    """Rows of a source and class that training reads at most."""
    measured_each: int = 1000
    """Rows of a development or held-out source and class at most."""
    frames_each: int = 3
    """Frames that each written phrase stands in."""
    augmented_share: float = 0.25
    """Share of the rows that training also reads in another form."""
    false_refusals: float = 0.02
    """Share of the ordinary texts of every development source that the thresholds may refuse at most."""
    content_refusals: float = 0.02
    """The same for harmless remarks of moderation data sets."""
    hard_safe_refusals: float = 0.1
    """The same for harmless texts that are alarming."""
    encoder_weight: float = 0.65
    """Weight of the encoder's logits in the ensemble; the linear model has the rest."""
    policy_file: Path | None = None
    """The policy that safety.json names; without one, the policy that ships."""
    notes: str = ""
    """What a reader of the card should know of how this one was made."""
    seed: int = 1

    def __post_init__(self) -> None:
        """Raise ConfigurationError where a source has two roles."""
        both = sorted(set(self.development) & set(self.held_out))
        if both:
            raise ConfigurationError(f"'development' and 'held_out' share {', '.join(both)}")
