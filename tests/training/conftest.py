"""A tiny tokenizer, tiny data and tiny recipes: every stage in seconds."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
import zstandard
from transformers import PreTrainedTokenizerFast

from turnwise_training.config import ModelShape
from turnwise_training.models import new_model
from turnwise_training.tokenizer import save_tokenizer, train_tokenizer

SENTENCES = [
    f"The {a} {b} sat on the {c} mat." for a in ("big", "red") for b in ("cat", "dog") for c in ("old", "new")
]


def conversation(index: int) -> dict[str, object]:
    """Return a row of data whose user words differ by index."""
    return {
        "messages": [
            {"role": "user", "content": f"Hello, I am number {index}."},
            {"role": "assistant", "content": f"Hi number {index}, the cat sat." + " Very old." * (index % 3)},
        ]
    }


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of 300 tokens."""
    return train_tokenizer([*SENTENCES, "Hello, I am number one."], vocab_size=300, context_length=128)


@pytest.fixture
def write_source(tmp_path: Path) -> Callable[[str, list[object]], Path]:
    """Write rows as `data/NAME.jsonl.zst`."""

    def write(name: str, rows: list[object]) -> Path:
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        path = folder / f"{name}.jsonl.zst"
        text = "".join(json.dumps(row) + "\n" for row in rows)
        path.write_bytes(zstandard.ZstdCompressor().compress(text.encode()))
        return path

    return write


@pytest.fixture
def pretrain_recipe(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, write_source: Callable[[str, list[object]], Path]
) -> Path:
    """A recipe of six steps in two phases over two sources."""
    save_tokenizer(tokenizer, tmp_path / "tokenizer")
    write_source("text", [{"text": f"{n} " + " ".join(SENTENCES)} for n in range(30)])
    write_source("talk", [conversation(n) for n in range(120)])
    recipe = {
        "name": "pre",
        "tokenizer": str(tmp_path / "tokenizer"),
        "output": str(tmp_path / "pretrained"),
        "data": str(tmp_path / "data"),
        "runs": str(tmp_path / "runs"),
        "tokens": 6 * 256,
        "batch_tokens": 256,
        "micro_tokens": 64,
        "save_every": 3,
        "eval_tokens": 200,
        "compile": False,
        "model": {
            "hidden_size": 32,
            "layers": 2,
            "heads": 2,
            "kv_heads": 1,
            "intermediate_size": 48,
            "context_length": 128,
        },
        "phases": [
            {"share": 0.7, "seq_len": 32, "mix": "base"},
            {"share": 0.3, "seq_len": 64, "mix": "base"},
        ],
        "mixes": {"base": {"text": 0.5, "talk": 0.5}},
    }
    path = tmp_path / "pretrain.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.fixture
def sft_recipe(tmp_path: Path, pretrain_recipe: Path) -> Path:
    """A recipe of six steps over two epochs; it begins from the output of `pretrain_recipe`."""
    recipe = {
        "name": "sft",
        "model": str(tmp_path / "pretrained"),
        "output": str(tmp_path / "sft"),
        "data": str(tmp_path / "data"),
        "runs": str(tmp_path / "runs"),
        "rows": {"talk": 24, "text": 1},
        "epochs": 2,
        "seq_len": 64,
        "long_seq_len": 128,
        "batch_tokens": 512,
        "micro_tokens": 128,
        "save_every": 3,
        "eval_tokens": 200,
        "compile": False,
    }
    path = tmp_path / "sft.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def ranking(index: int) -> dict[str, object]:
    """Return a ranking of three answers of which the greeting is best and silence worst; some tie."""
    contents = [f"Hi number {index}, the cat sat.", "The old mat.", "."]
    ranks = [1, 2, 3 if index % 4 else 2]
    return {
        "prompt": [{"role": "user", "content": f"Hello, I am number {index}."}],
        "completions": [{"content": c, "rank": r} for c, r in zip(contents, ranks, strict=True)],
    }


@pytest.fixture
def base_checkpoint(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A tiny untrained language model with its tokenizer."""
    shape = ModelShape(
        hidden_size=32, layers=2, heads=2, kv_heads=1, intermediate_size=48, context_length=128
    )
    folder = tmp_path / "base"
    new_model(shape, tokenizer, seed=1).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return folder


@pytest.fixture
def reward_recipe(
    tmp_path: Path, base_checkpoint: Path, write_source: Callable[[str, list[object]], Path]
) -> Path:
    """A recipe of six steps over two epochs, saved after the second and the fourth."""
    write_source("ranked", [ranking(n) for n in range(80)])
    write_source("shown", [conversation(n) for n in range(20)])
    recipe = {
        "name": "rm",
        "model": str(base_checkpoint),
        "output": str(tmp_path / "reward"),
        "data": str(tmp_path / "data"),
        "runs": str(tmp_path / "runs"),
        "rankings": {"ranked": 20},
        "demonstrations": {"shown": 15},
        "epochs": 2,
        "batch": 8,
        "max_tokens": 100,
        "micro_tokens": 600,
        "save_every": 2,
        "optimization": {"learning_rate": 0.003, "muon_learning_rate": 0.0, "weight_decay": 0.0},
    }
    path = tmp_path / "reward.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.fixture
def ppo_recipe(
    tmp_path: Path, base_checkpoint: Path, write_source: Callable[[str, list[object]], Path]
) -> Path:
    """A recipe of four iterations of two minibatches, with a pretraining mix; micro-batches of unequal size."""
    write_source("asked", [conversation(n) for n in range(400)])
    write_source("text", [{"text": f"{n} " + " ".join(SENTENCES)} for n in range(30)])
    recipe = {
        "name": "ppo",
        "model": str(base_checkpoint),
        "output": str(tmp_path / "ppo"),
        "data": str(tmp_path / "data"),
        "runs": str(tmp_path / "runs"),
        "prompts": {"asked": 400},
        "rewards": [{"kind": "callable", "source": "support.training_processes:count_spaces"}],
        "iterations": 4,
        "batch": 8,
        "minibatch": 4,
        "micro": 3,
        "max_new_tokens": 6,
        "ptx": {"mix": {"text": 1.0}, "rows": 3, "seq_len": 32},
        "policy": {"learning_rate": 0.001, "muon_learning_rate": 0.0, "eps": 1e-5},
        "value": {"learning_rate": 0.001, "muon_learning_rate": 0.0, "eps": 1e-5},
        "kl_max": 1000.0,
        "eval_tokens": 200,
        "show_every": 2,
        "save_every": 2,
    }
    path = tmp_path / "ppo.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path
