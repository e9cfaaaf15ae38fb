"""Writes a finished model directory: the checkpoint contract of docs/checkpoint-contract.md."""

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import tokenizers
import torch
import transformers
from safetensors import SafetensorError
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from turnwise_training.adapters import ADAPTER, POLICY, is_quantized, merged, save_adapter
from turnwise_training.card import RECORD, write_card
from turnwise_training.chat import Encoder
from turnwise_training.config import RewardConfig, TrainedConfig
from turnwise_training.data import source_path
from turnwise_training.errors import RunError
from turnwise_training.models import load_model
from turnwise_training.parallel import Parallel
from turnwise_training.policy import read_policy
from turnwise_training.recipe import as_json
from turnwise_training.run import file_sha256, weights_digest, write_durably
from turnwise_training.sharding import plain_type

FORMAT_VERSION = 1
WEIGHTS = "model.safetensors"


def export_checkpoint(
    model: PreTrainedModel,
    encoder: Encoder,
    folder: Path,
    *,
    stage: str,
    config: TrainedConfig,
    sources: Iterable[str],
    steps: int,
    held_out: dict[str, dict[str, float]],
    parent: Path | None,
    parallel: Parallel,
    facts: Mapping[str, object] | None = None,
) -> None:
    """Write the model in bfloat16 with everything it needs to be served, beside its place, then rename it there.

    Every process calls this and the first one writes; shards are gathered and an adapter is merged. `facts` join the
    record in training.json. Raises RunError where the files cannot be written.
    """
    weights = parallel.whole(model.state_dict())

    def write() -> None:
        shipped, base = plain_type(model)(model.config), None
        if is_quantized(model) and parent is not None:
            shipped = load_model(parent)
            base = shipped.state_dict()
        shipped.load_state_dict(merged(model, weights, POLICY, base=base))
        shipped.to(torch.bfloat16)
        shipped.generation_config = _generation_config(encoder)
        every = {"steps": steps, "held_out": held_out, **(facts or {})}
        record = _record(shipped, stage, config, every, sources, parent)
        _write(
            shipped,
            encoder.tokenizer,
            folder,
            record,
            lambda place: save_adapter(model, weights, POLICY, place),
        )

    parallel.on_main(write)


def _generation_config(encoder: Encoder) -> GenerationConfig:
    """Return the sampling settings a checkpoint ships with; the first of its end tokens ends a turn."""
    return GenerationConfig(
        eos_token_id=[encoder.turn_end, *sorted(encoder.end_ids - {encoder.turn_end})],
        pad_token_id=encoder.tokenizer.pad_token_id,
        do_sample=True,
        temperature=0.7,
        top_p=0.9,
        max_new_tokens=512,
    )


def export_reward_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    config: RewardConfig,
    *,
    steps: int,
    report: dict[str, object],
    keep_adapter: Callable[[Path], None] = lambda place: None,  # noqa: ARG005
) -> None:
    """Write a reward model as a sequence classifier in float32; `keep_adapter` writes its adapter to a folder.

    bfloat16 would move scores by a hundredth, and the demonstrations' mean with them.
    """
    sources = [*config.rankings, *config.demonstrations]
    facts = {"steps": steps, "held_out": {}, "reward": report}
    record = _record(model, "reward", config, facts, sources, config.model)
    _write(model, tokenizer, config.output, record, keep_adapter)


def _write(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    record: dict[str, object],
    keep_adapter: Callable[[Path], None],
) -> None:
    unfinished = folder.with_name(f".tmp-{folder.name}")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        model.save_pretrained(unfinished)
        keep_adapter(unfinished / ADAPTER)
        tokenizer.save_pretrained(unfinished)
        write_durably(unfinished / RECORD, (json.dumps(record, indent=2) + "\n").encode())
        write_card(unfinished)
        if folder.exists():
            shutil.rmtree(folder)
        unfinished.rename(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise RunError(
            f"{folder} could not be written ({error}); the run's steps are kept: free disk space and run again"
        ) from error


def _record(
    model: PreTrainedModel,
    stage: str,
    config: TrainedConfig,
    facts: dict[str, object],
    sources: Iterable[str],
    parent: Path | None,
) -> dict[str, object]:
    """Return what training.json holds."""
    return {
        "format_version": FORMAT_VERSION,
        "stage": stage,
        "config": as_json(config),
        "policy": read_policy(config.policy_file).record,
        "parameters": model.num_parameters(),
        **facts,
        "data_sha256": _digests(config.data, sources),
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
        "parent": _parent(parent),
    }


def _digests(data: Path, sources: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of each source's file; sources that programs write are fixed by seed and version."""
    paths = {name: source_path(data, name) for name in sorted(set(sources))}
    return {name: file_sha256(path) for name, path in paths.items() if path is not None}


def _parent(folder: Path | None) -> dict[str, object] | None:
    """Return the digest and the record of the checkpoint this one began from."""
    if folder is None:
        return None
    record = folder / RECORD
    return {
        "weights_sha256": weights_digest(folder),
        "training": json.loads(record.read_text()) if record.is_file() else None,
    }
