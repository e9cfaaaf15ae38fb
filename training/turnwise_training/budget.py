"""What a stage needs before it starts: its inputs, and the memory of weights, gradients and optimizer states."""

from collections.abc import Iterable
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from turnwise_training.config import (
    ConstitutionConfig,
    EvaluateConfig,
    Lora,
    ModelShape,
    PPOConfig,
    PretrainConfig,
    RewardConfig,
    SampleConfig,
    SFTConfig,
    StageConfig,
    TrainedConfig,
)
from turnwise_training.data import source_path

TRAINED_BYTES = 16
"""Of a weight that is trained by AdamW: float32 weight, gradient and two moments."""
FROZEN_BYTES = 4
QUANTIZED_BYTES = 0.55
"""Of a weight held in nf4 with its scales."""


def budget(config: StageConfig) -> dict[str, object]:
    """Return the inputs that are missing, the parameters, and the bytes of all states; activations come on top.

    Parameters are counted from the architecture alone; they are None where it is still to be made.
    """
    parameters = _parameters(config)
    state_bytes = None if parameters is None else round(parameters * bytes_per_parameter(config))
    missing = [str(path) for path in inputs(config) if not path.exists()]
    return {
        "missing_inputs": missing,
        "parameters": parameters,
        "bytes_per_parameter": bytes_per_parameter(config),
        "state_bytes": state_bytes,
    }


def bytes_per_parameter(config: StageConfig) -> float:
    """Return the bytes of state for each parameter of the model that is trained.

    With an adapter the base is held once and frozen; the adapter's own weights, about a hundredth, are left out.
    """
    match config:
        case PPOConfig(lora=None):
            engine = 2 if config.precision == "bfloat16" else 0
            rewards = sum(term.kind == "model" for term in config.rewards) + (
                config.held_out_reward is not None
            )
            average, reference = FROZEN_BYTES, FROZEN_BYTES
            return 2 * TRAINED_BYTES + average + reference + engine + FROZEN_BYTES * rewards
        case (
            SFTConfig(lora=Lora() as lora)
            | RewardConfig(lora=Lora() as lora)
            | PPOConfig(lora=Lora() as lora)
        ):
            return FROZEN_BYTES if lora.quantize == "none" else QUANTIZED_BYTES
        case PretrainConfig() | SFTConfig() | RewardConfig():
            return TRAINED_BYTES
        case _:
            return FROZEN_BYTES


def inputs(config: StageConfig) -> list[Path]:
    """Return every directory and file of data a stage reads."""
    folders: list[Path | None] = []
    sources: Iterable[str] = ()
    match config:
        case PretrainConfig():
            folders, sources = [config.tokenizer], [name for mix in config.mixes.values() for name in mix]
        case ConstitutionConfig():
            models = [config.feedback.assistant, config.feedback.judge] if config.feedback else []
            local = [Path(each) for each in models if each and "://" not in each]
            folders = [config.policy_file, *config.held_out, *local]
            sources = [*config.harmful, *config.harmless]
        case SFTConfig():
            folders, sources = [config.model, config.reward_model], config.rows
        case RewardConfig():
            folders, sources = [config.model], [*config.rankings, *config.demonstrations]
        case PPOConfig():
            terms = [Path(term.source) for term in config.rewards if term.kind == "model"]
            folders = [config.model, config.value_model, config.held_out_reward, *terms]
            sources = [*config.prompts, *(config.ptx.mix if config.ptx else ())]
        case SampleConfig():
            folders, sources = [config.model], config.prompts
        case EvaluateConfig():
            folders = [*config.checkpoints.values(), *config.reward_models.values()]
            sources = [*config.prompts, *config.rankings, *config.held_out]
        case _:
            sources = config.sources
    if isinstance(config, TrainedConfig):
        folders = [*folders, config.policy_file]
    files = [source_path(config.data, name) for name in dict.fromkeys(sources)]
    return [path for path in (*folders, *files) if path is not None]


def _parameters(config: StageConfig) -> int | None:
    match config:
        case PretrainConfig():
            return _count_shape(config.model, config.tokenizer)
        case SFTConfig() | RewardConfig() | PPOConfig() | SampleConfig():
            return _count_folder(config.model)
        case _:
            return None


def _count_shape(shape: ModelShape, tokenizer: Path) -> int | None:
    if not (tokenizer / "tokenizer.json").is_file():
        return None
    vocabulary = len(AutoTokenizer.from_pretrained(tokenizer))
    width, keys = shape.hidden_size, shape.hidden_size // shape.heads * shape.kv_heads
    attention = 2 * width * width + 2 * width * keys
    layer = attention + 3 * width * shape.intermediate_size + 2 * width
    return vocabulary * width + shape.layers * layer + width


def _count_folder(folder: Path) -> int | None:
    if not (folder / "config.json").is_file():
        return None
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    count: int = model.num_parameters()
    return count
