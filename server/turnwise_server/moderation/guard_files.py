"""Opens the directory of a causal guard: safetensors and JSON alone, no code, and only the weights that were meant."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from turnwise_server.errors import DetectorFileError
from turnwise_server.moderation.classifier_files import read_json


def verify_guard(path: Path, *, sha256: str | None) -> str:
    """Return the SHA-256 of the weights, of a sharded model's files one after another in the order of their names.

    Raises:
        DetectorFileError: a file is missing or damaged, the model brings code, or its digest is not `sha256`.
    """
    if not path.is_dir():
        raise DetectorFileError(f"there is no model directory {path}. Give the directory of a guard.")
    for name in ("config.json", "tokenizer_config.json"):
        if "auto_map" in read_json(path / name):
            raise DetectorFileError(
                f"{path / name} wants to run code of its own (auto_map), and no model's code is ever run. "
                "Choose a model that transformers knows."
            )
    if (path / "adapter_config.json").exists():
        raise DetectorFileError(
            f"{path} is an adapter. Merge it into its model and save that with save_pretrained()."
        )
    digest = _digest(_weight_files(path))
    if sha256 not in (None, digest):
        raise DetectorFileError(
            f"the weights in {path} have the digest {digest}. Put back the ones that were meant, or, if these "
            "are, write their digest into the policy."
        )
    return digest


def load_guard_model(path: Path) -> PreTrainedModel:
    """Load the weights onto a GPU as they are, or onto the CPU in 32-bit floats if there is none.

    Raises:
        DetectorFileError: transformers does not know the architecture, or weights are missing or do not fit it.
    """
    import torch

    is_gpu = torch.cuda.is_available()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            path,
            dtype="auto" if is_gpu else torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        model.to("cuda" if is_gpu else "cpu")
    except Exception as error:
        raise DetectorFileError(
            f"{path} cannot be loaded: {error}. Check its config.json against its weights."
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise DetectorFileError(
            f"the weights of {path} lack {missing[0]} and {len(missing) - 1} more. Finish the download."
        )
    return model.eval()


def _weight_files(path: Path) -> Sequence[Path]:
    index = path / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if index.exists():
        names = sorted(set(read_json(index).get("weight_map", {}).values()))
    for name in names:
        if not (path / name).is_file():
            raise DetectorFileError(
                f"{path / name} is missing. Finish the download, or save the model with save_pretrained(): "
                "weights are read from safetensors alone."
            )
    return [path / name for name in names]


def _digest(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            hashlib.file_digest(stream, lambda: digest)
    return digest.hexdigest()
