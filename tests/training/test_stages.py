"""Each stage from recipe to a checkpoint that bare transformers loads."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from turnwise_training.chat import Encoder, load_tokenizer
from turnwise_training.config import PretrainConfig, SFTConfig, TokenizerConfig
from turnwise_training.errors import ConfigurationError, DataError, RunError
from turnwise_training.pretrain import describe, plan, run_pretrain
from turnwise_training.recipe import load_config
from turnwise_training.sft import make_plan, run_sft
from turnwise_training.tokenizer import run_tokenizer

PROMISED = [
    "README.md",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "training.json",
]


def pretrain(recipe: Path, *overrides: str, force: bool = False) -> PretrainConfig:
    config = load_config(PretrainConfig, recipe, overrides)
    run_pretrain(config, force=force)
    return config


def test_the_stages_end_in_a_checkpoint_that_keeps_the_contract(
    tmp_path: Path, pretrain_recipe: Path, sft_recipe: Path
) -> None:
    pretrain(pretrain_recipe)
    run_sft(load_config(SFTConfig, sft_recipe, []), force=False)
    folder = tmp_path / "sft"
    assert sorted(path.name for path in folder.iterdir()) == PROMISED
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert model.generation_config.eos_token_id == ends
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id
    assert model.generation_config.pad_token_id not in ends
    state = torch.load(max((tmp_path / "runs/sft/steps").iterdir()) / "state.pt", weights_only=True)["model"]
    for name, tensor in load_file(folder / "model.safetensors").items():
        assert torch.equal(tensor, state[name].to(torch.bfloat16))


def test_the_record_tells_the_whole_history(tmp_path: Path, pretrain_recipe: Path, sft_recipe: Path) -> None:
    pretrain(pretrain_recipe)
    run_sft(load_config(SFTConfig, sft_recipe, []), force=False)
    record = json.loads((tmp_path / "sft/training.json").read_text())
    assert record["stage"] == "sft"
    assert record["parent"]["training"]["stage"] == "pretrain"
    assert set(record["data_sha256"]) == {"talk", "text"}
    assert record["held_out"]["talk"]["nats_per_token"] > 0
    assert record["held_out"]["talk"]["nats_per_byte"] > 0


def test_training_lowers_the_loss(tmp_path: Path, pretrain_recipe: Path) -> None:
    pretrain(pretrain_recipe, "tokens=7680", "optimization.learning_rate=0.01")
    lines = [json.loads(line) for line in (tmp_path / "runs/pre/log.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]


def test_a_finished_output_is_kept_unless_forced(tmp_path: Path, pretrain_recipe: Path) -> None:
    pretrain(pretrain_recipe)
    before = (tmp_path / "pretrained/model.safetensors").stat().st_mtime_ns
    with pytest.raises(RunError, match="finished result; pass --force"):
        pretrain(pretrain_recipe, "name=other")
    assert (tmp_path / "pretrained/model.safetensors").stat().st_mtime_ns == before
    pretrain(pretrain_recipe, "name=other", force=True)
    assert (tmp_path / "pretrained/model.safetensors").stat().st_mtime_ns > before


def test_phases_share_out_the_steps_and_set_the_row_length(tmp_path: Path, pretrain_recipe: Path) -> None:
    config = pretrain(pretrain_recipe)
    assert [(stretch.start, stretch.end) for stretch in plan(config)] == [(0, 4), (4, 6)]
    lines = [json.loads(line) for line in (tmp_path / "runs/pre/log.jsonl").read_text().splitlines()]
    assert [line["rows"] for line in lines] == [[8, 32]] * 4 + [[4, 64]] * 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tokens=100", "nothing to train: 100 tokens"),
        ("phases=[]", "nothing to train"),
        ("phases=[{share: 1, seq_len: 32, mix: bace}]", "phase mix 'bace' is none of mixes"),
        ("phases=[{share: 1, seq_len: 100, mix: base}]", "no multiple of seq_len 100"),
    ],
)
def test_phases_that_cannot_be_run_are_refused(pretrain_recipe: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        describe(load_config(PretrainConfig, pretrain_recipe, [override]))


def test_a_dry_run_prints_sizes_and_steps_and_writes_nothing(tmp_path: Path, pretrain_recipe: Path) -> None:
    facts = describe(load_config(PretrainConfig, pretrain_recipe, []))
    assert facts["steps"] == 6
    assert facts["tokens"] == 1536
    assert not (tmp_path / "runs").exists()


def test_long_conversations_get_long_rows_and_longer_ones_are_counted(
    tmp_path: Path, pretrain_recipe: Path, sft_recipe: Path
) -> None:
    config = load_config(SFTConfig, sft_recipe, ["seq_len=40", "long_seq_len=50", "rows={talk: 60}"])
    encoder = Encoder(load_tokenizer(tmp_path / "tokenizer"))
    built = make_plan(config, encoder)
    lengths = [rows.ids.shape[1] for rows in built.groups]
    assert lengths == [40, 50]
    assert built.dropped > 0


def test_a_row_without_a_token_to_train_on_is_an_error(
    tmp_path: Path,
    pretrain_recipe: Path,
    sft_recipe: Path,
    write_source: Callable[[str, list[object]], Path],
) -> None:
    write_source("text", [{"text": "."}] * 20)
    config = load_config(SFTConfig, sft_recipe, [])
    with pytest.raises(DataError, match=r"text\.jsonl\.zst line \d+: no token to train on"):
        make_plan(config, Encoder(load_tokenizer(tmp_path / "tokenizer")))


def test_a_template_that_hides_the_end_of_turn_is_refused(tmp_path: Path, pretrain_recipe: Path) -> None:
    (tmp_path / "tokenizer/chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(ConfigurationError, match="no special token after a reply"):
        Encoder(load_tokenizer(tmp_path / "tokenizer"))


def test_the_tokenizer_stage_writes_what_the_next_stages_load(tmp_path: Path, pretrain_recipe: Path) -> None:
    recipe = tmp_path / "tokenizer.yaml"
    values = {
        "output": str(tmp_path / "new"),
        "data": str(tmp_path / "data"),
        "vocab_size": 280,
        "sources": {"text": 1},
    }
    recipe.write_text(yaml.safe_dump(values))
    config = load_config(TokenizerConfig, recipe, [])
    run_tokenizer(config, force=False)
    assert len(load_tokenizer(tmp_path / "new")) == 280
    with pytest.raises(RunError, match="pass --force"):
        run_tokenizer(config, force=False)


def test_help_and_a_wrong_key_need_no_heavy_library(pretrain_recipe: Path) -> None:
    script = (
        "import sys; from turnwise_training.cli import main\n"
        f"sys.argv = ['turnwise-train', 'pretrain', {str(pretrain_recipe)!r}, 'tokns=1']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    print(end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "2 False"
    assert "did you mean 'tokens'" in done.stderr
