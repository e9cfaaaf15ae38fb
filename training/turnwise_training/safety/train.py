"""`turnwise-train safety`: trains both models, calibrates them, measures them and writes the detector's directory."""

import json
import logging
from dataclasses import dataclass, replace

from turnwise_training.errors import RunError
from turnwise_training.policy import read_policy
from turnwise_training.safety.augment import augmented
from turnwise_training.safety.calibrate import calibrate
from turnwise_training.safety.card import card
from turnwise_training.safety.config import SafetyConfig
from turnwise_training.safety.corpus import Corpus, census, read_corpus
from turnwise_training.safety.detector import (
    MAX_LENGTH,
    Blend,
    Calibration,
    load_detector,
    whole_logits,
    write_safety_json,
)
from turnwise_training.safety.encoder import EncoderModel, train_encoder
from turnwise_training.safety.judge import judge, table
from turnwise_training.safety.latency import milliseconds_a_message
from turnwise_training.safety.linear import LinearModel, train_linear

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Models:
    """The two trained models and the weights their logits are added with."""

    encoder: EncoderModel
    linear: LinearModel
    encoder_weight: float

    @property
    def ensemble(self) -> dict[str, float]:
        """Return each model's weight by its name in safety.json."""
        return {"encoder": self.encoder_weight, "linear": round(1 - self.encoder_weight, 6)}

    @property
    def blend(self) -> Blend:
        """Return the models as one scorer."""
        return Blend([(self.encoder, self.encoder_weight), (self.linear, 1 - self.encoder_weight)])


def describe(config: SafetyConfig) -> dict[str, object]:
    """Return what would be trained on and measured on, by source."""
    corpus = read_corpus(config)
    return {
        role: census(rows)
        for role, rows in (
            ("train", corpus.train),
            ("development", corpus.development),
            ("held_out", corpus.held_out),
        )
    }


def run_safety(config: SafetyConfig, *, force: bool) -> None:
    """Train a detector from a recipe into `output`; raises RunError where one is there already."""
    if (config.output / "safety.json").exists() and not force:
        raise RunError(
            f"{config.output} holds a detector; pass --force to replace it or choose another output"
        )
    read_policy(config.policy_file)  # a policy that cannot be named shall stop the run before it has begun
    corpus = read_corpus(config)
    rows = list(augmented(corpus.train, share=config.augmented_share, seed=config.seed))
    linear = train_linear(rows, config.linear, seed=config.seed)
    encoder = train_encoder(rows, config.encoder, seed=config.seed)
    write_detector(config, corpus, Models(encoder, linear, config.encoder_weight))


def write_detector(config: SafetyConfig, corpus: Corpus, models: Models) -> None:
    """Write the models, reread them as a server would, and choose thresholds on what was written."""
    config.output.mkdir(parents=True, exist_ok=True)
    (config.output / "safety.json").unlink(missing_ok=True)
    models.encoder.save(config.output)
    models.linear.save(config.output / "linear")
    written = replace(
        models,
        encoder=EncoderModel.load(config.output, max_length=MAX_LENGTH),
        linear=LinearModel.load(config.output / "linear"),
    )
    calibration, facts = measure(config, corpus, written)
    write_safety_json(config.output, ensemble=models.ensemble, calibration=calibration, facts=facts)
    detector = load_detector(config.output)
    speed = milliseconds_a_message(detector, [row.text for row in corpus.held_out if row.kind == "ordinary"])
    facts = {**facts, "milliseconds_a_message": speed}
    write_safety_json(config.output, ensemble=models.ensemble, calibration=calibration, facts=facts)
    (config.output / "README.md").write_text(card(json.loads((config.output / "safety.json").read_text())))


def measure(config: SafetyConfig, corpus: Corpus, models: Models) -> tuple[Calibration, dict[str, object]]:
    """Return the calibration chosen on development sources, and the figures of those and of the held-out ones."""
    development = whole_logits(models.blend, [row.text for row in corpus.development])
    calibration = calibrate(
        corpus.development,
        development,
        false_refusals=config.false_refusals,
        content_refusals=config.content_refusals,
        hard_safe_refusals=config.hard_safe_refusals,
    )
    held_out = whole_logits(models.blend, [row.text for row in corpus.held_out])
    figures = judge(corpus.held_out, held_out, calibration)
    _log.info("held out by source:\n%s", table(figures))
    return calibration, {
        "policy": read_policy(config.policy_file).record,
        "licences": config.licences,
        "notes": config.notes,
        "false_refusals_allowed": {
            "ordinary": config.false_refusals,
            "content": config.content_refusals,
            "hard_safe": config.hard_safe_refusals,
        },
        "training": census(corpus.train),
        "development": judge(corpus.development, development, calibration),
        "held_out": figures,
    }
