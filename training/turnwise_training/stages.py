"""The stages by name: their settings and where their work is, imported when it is asked for."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from turnwise_training.config import (
    ConstitutionConfig,
    EvaluateConfig,
    PPOConfig,
    PretrainConfig,
    RewardConfig,
    SampleConfig,
    SFTConfig,
    StageConfig,
    TokenizerConfig,
    TrainedConfig,
)
from turnwise_training.constitution.manifest import require_rows_of
from turnwise_training.policy import read_policy
from turnwise_training.recipe import load_config


@dataclass(frozen=True)
class Stage:
    """One stage: its module has `describe(config)` and `run_NAME(config, force=...)`."""

    name: str
    settings: type[StageConfig]
    module: str
    marker: str
    """The file inside `output` that shows that the stage has finished; empty where the output is the file."""

    def load(self, recipe: Path, overrides: Sequence[str]) -> StageConfig:
        """Return the settings of a recipe file with overrides."""
        return load_config(self.settings, recipe, overrides)

    def describe(self, config: StageConfig) -> dict[str, object]:
        """Return what a dry run prints: memory and missing inputs, and where none is missing, data and steps."""
        from turnwise_training.budget import budget

        needs = budget(config)
        if needs["missing_inputs"]:
            return needs
        _quieten_transformers()
        facts: dict[str, object] = importlib.import_module(self.module).describe(config)
        return {**needs, **facts}

    def run(self, config: StageConfig, *, force: bool) -> None:
        """Run the stage to its end, going on from where it was.

        Raises ConfigurationError before the first step for a policy that the checkpoint could not name after the last,
        and for rows that were made of another.
        """
        if isinstance(config, TrainedConfig):
            from turnwise_training.budget import inputs

            require_rows_of(read_policy(config.policy_file), inputs(config))
        _quieten_transformers()
        getattr(importlib.import_module(self.module), f"run_{self.name}")(config, force=force)

    def is_finished(self, config: StageConfig) -> bool:
        """Tell whether the stage has written its output."""
        return (config.output / self.marker).exists()


def _quieten_transformers() -> None:
    """Keep bars for files of a second and reports on heads that are new on purpose out of the progress line."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


STAGES = {
    stage.name: stage
    for stage in (
        Stage("tokenizer", TokenizerConfig, "turnwise_training.tokenizer", "tokenizer.json"),
        Stage("pretrain", PretrainConfig, "turnwise_training.pretrain", "model.safetensors"),
        Stage("constitution", ConstitutionConfig, "turnwise_training.constitution.command", "manifest.json"),
        Stage("sft", SFTConfig, "turnwise_training.sft", "model.safetensors"),
        Stage("sample", SampleConfig, "turnwise_training.sample", ""),
        Stage("reward", RewardConfig, "turnwise_training.reward", "model.safetensors"),
        Stage("ppo", PPOConfig, "turnwise_training.ppo_stage", "model.safetensors"),
        Stage("evaluate", EvaluateConfig, "turnwise_training.evaluate.command", ""),
    )
}
