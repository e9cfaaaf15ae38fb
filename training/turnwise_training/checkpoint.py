"""Writes a finished model directory: the checkpoint contract of docs/checkpoint-contract.md."""

import json
import shutil
from pathlib import Path

import torch
import transformers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from turnwise_training.config import PretrainConfig, SFTConfig, as_json
from turnwise_training.models import generation_config
from turnwise_training.run import file_sha256

FORMAT_VERSION = 1


def export_checkpoint(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    *,
    stage: str,
    config: PretrainConfig | SFTConfig,
    metrics: dict[str, dict[str, float]],
    parent: Path | None,
) -> None:
    """Write the model in bfloat16 with everything it needs to be served; whole or not at all."""
    from turnwise_training.card import write_card

    unfinished = folder.with_name(f".tmp-{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    state = {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items()}
    shipped = LlamaForCausalLM(model.config).to(torch.bfloat16)
    shipped.load_state_dict(state)
    shipped.generation_config = generation_config(tokenizer)
    shipped.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    facts = {
        "format_version": FORMAT_VERSION,
        "stage": stage,
        "parent_sha256": file_sha256(parent / "model.safetensors") if parent else None,
        "config": as_json(config),
        "parameters": model.num_parameters(),
        "data_sha256": {},
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "held_out": metrics,
    }
    (unfinished / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
    write_card(unfinished)
    if folder.exists():
        shutil.rmtree(folder)
    unfinished.rename(folder)
