"""The model card: figures from the record, words from the notes."""

import json
from pathlib import Path

import pytest

from turnwise_training.card import update_card
from turnwise_training.errors import RunError

OPTIMIZATION = {"learning_rate": 0.003, "muon_learning_rate": 0.02}
PRETRAINING = {
    "stage": "pretrain",
    "steps": 10,
    "parameters": 10_800_000,
    "config": {
        "model": {
            "layers": 6,
            "hidden_size": 384,
            "heads": 6,
            "kv_heads": 2,
            "intermediate_size": 768,
            "context_length": 2048,
        },
        "mixes": {"base": {"text_books": 1.0}},
        "batch_tokens": 16384,
        "optimization": OPTIMIZATION,
        "seed": 1,
    },
    "held_out": {"text_books": {"nats_per_token": 3.5, "nats_per_byte": 0.9, "tokens": 100}},
    "parent": None,
}
RECORD = {
    **PRETRAINING,
    "stage": "sft",
    "config": {
        "rows": {"talk": 5},
        "model": "x",
        "batch_tokens": 16384,
        "optimization": OPTIMIZATION,
        "seed": 1,
    },
    "held_out": {"talk": {"nats_per_token": 1.25, "nats_per_byte": 0.33, "tokens": 100}},
    "parent": {"weights_sha256": "0", "training": PRETRAINING},
}


def test_the_card_names_data_licences_recipe_losses_and_limits(tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text(json.dumps(RECORD))
    notes = tmp_path / "notes.yaml"
    notes.write_text(
        "title: Small\nsources: {talk: {origin: us, licence: CC0}}\nsections: {Limits: It errs.}\n"
    )
    behaviour = tmp_path / "behaviour.json"
    behaviour.write_text(
        json.dumps({"rates": [{"probe": "greets back", "sampled": 0.9, "greedy": 1.0, "count": 20}]})
    )
    update_card(tmp_path, notes=notes, behaviour=behaviour)
    card = (tmp_path / "README.md").read_text()
    assert "# Small" in card
    assert "10.8M parameters" in card
    assert "| talk | us | CC0 | sft |" in card
    assert "| text_books | 3.50 | 0.90 | - | - |" in card
    assert "| greets back | 90% | 100% | 20 |" in card
    assert "## Limits\n\nIt errs." in card
    update_card(tmp_path, notes=None, behaviour=None)
    assert (tmp_path / "README.md").read_text() == card


def test_the_card_of_a_ppo_model_shows_its_figures_and_stage_against_stage(tmp_path: Path) -> None:
    config = {"prompts": {"asked": 9}, "batch": 64, "policy": {"learning_rate": 5e-6}, "seed": 1}
    record = {
        "stage": "ppo",
        "steps": 20,
        "parameters": 10_800_000,
        "config": {**config, "value": {"learning_rate": 9e-6}},
        "held_out": {"talk": {"nats_per_token": 1.27, "nats_per_byte": 0.34, "tokens": 100}},
        "held_out_before": RECORD["held_out"],
        "figures": {"step": 20, "score_mean": 0.75, "kl_k1": 4.5, "grad_norm": 1.0},
        "parent": {"weights_sha256": "0", "training": RECORD},
    }
    (tmp_path / "training.json").write_text(json.dumps(record))
    rate = {"rate": 0.625, "low": 0.5, "high": 0.75}
    found: dict[str, object] = {"held_out": {}, "refusals": {}}
    evaluation = {
        "against": "sft",
        "config": {"judge": [{"source": "runs/judge"}]},
        "checkpoints": {"sft": found, "ppo": {**found, "preferred": {"win_rate": rate}}},
        "reward_models": {
            "judge": {"prompts": 7, "accuracy": {"pairs": 30, "share": 0.8}, "calibration_error": 0.02}
        },
        "examples": [{"prompt": [], "answers": {}}],
    }
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
    update_card(tmp_path, notes=None, behaviour=None, evaluation=tmp_path / "evaluation.json")
    card = (tmp_path / "README.md").read_text()
    assert "**ppo**: 20 steps of 64" in card
    assert "| score_mean | 0.750 |\n| kl_k1 | 4.500 |" in card
    assert "+0.020 on talk" in card
    assert "| preferred to sft | - | 62.5% [50.0%, 75.0%] |" in card
    assert "| pairs ordered right | 80.0% |" in card
    assert "`runs/judge`" in card
    assert "examples" not in json.loads((tmp_path / "training.json").read_text())["evaluation"]


def test_a_folder_without_a_record_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds no training\.json"):
        update_card(tmp_path, notes=None, behaviour=None)
