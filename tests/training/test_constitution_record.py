"""Every checkpoint, reward model and detector says which policy it was trained under, and its card shows it."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from turnwise_training.card import write_card
from turnwise_training.cli import app
from turnwise_training.errors import ConfigurationError
from turnwise_training.policy import read_policy

DEFAULT = Path(__file__).parents[2] / "policies" / "default.yaml"


@pytest.fixture
def own_policy(tmp_path: Path) -> Path:
    """A policy file that differs from the one that ships."""
    file = tmp_path / "own.yaml"
    file.write_text(DEFAULT.read_text().replace("name: default", "name: own", 1))
    return file


def train(stage: str, recipe: Path, *overrides: str) -> Path:
    """Run a stage by its recipe and return the folder of its output."""
    result = CliRunner().invoke(app, [stage, str(recipe), *overrides], catch_exceptions=False)
    assert result.exit_code == 0
    return Path(yaml.safe_load(recipe.read_text())["output"])


def record(folder: Path) -> dict[str, object]:
    policy: dict[str, object] = json.loads((folder / "training.json").read_text())["policy"]
    return policy


def test_fine_tuning_records_the_policy_of_its_recipe(
    pretrain_recipe: Path, sft_recipe: Path, own_policy: Path
) -> None:
    pretrained = train("pretrain", pretrain_recipe)
    tuned = train("sft", sft_recipe, f"policy_file={own_policy}", "epochs=1")
    assert record(pretrained) == read_policy().record
    assert record(tuned) == read_policy(own_policy).record
    card = (tuned / "README.md").read_text()
    assert f"- **pretrain**: `default`, version 1, SHA-256 `{read_policy().sha256}`" in card
    assert f"- **sft**: `own`, version 1, SHA-256 `{read_policy(own_policy).sha256}`" in card


def test_a_reward_model_records_the_policy(reward_recipe: Path, own_policy: Path) -> None:
    folder = train("reward", reward_recipe, f"policy_file={own_policy}", "epochs=1")
    assert record(folder) == read_policy(own_policy).record
    assert "SHA-256" in (folder / "README.md").read_text()


def test_ppo_records_the_policy_file_beside_the_policys_optimization(
    ppo_recipe: Path, own_policy: Path
) -> None:
    folder = train("ppo", ppo_recipe, f"policy_file={own_policy}", "iterations=1")
    assert record(folder) == read_policy(own_policy).record


def test_a_broken_policy_stops_a_stage_before_its_first_step(sft_recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("version: 1\nprincipals: []\n")
    with pytest.raises(ConfigurationError, match=r"broken\.yaml:2: "):
        train("sft", sft_recipe, f"policy_file={tmp_path / 'broken.yaml'}")
    assert not (tmp_path / "runs" / "sft").exists()


def test_rows_of_another_policy_are_refused(sft_recipe: Path, own_policy: Path, tmp_path: Path) -> None:
    constitution = tmp_path / "constitution.yaml"
    rules = {"output": str(tmp_path / "rules"), "policy_file": str(own_policy), "frames_each": 1}
    constitution.write_text(yaml.safe_dump(rules))
    rows = f"rows={{{train('constitution', constitution) / 'demonstrations.jsonl'}: 5}}"
    with pytest.raises(ConfigurationError, match=r"made of another policy \('own', .*set `policy_file`"):
        train("sft", sft_recipe, rows)
    with pytest.raises(
        ConfigurationError, match="no tokenizer"
    ):  # the policy fits; what comes next is the model
        train("sft", sft_recipe, rows, f"policy_file={own_policy}")


def test_a_policy_that_is_not_there_is_a_missing_input(sft_recipe: Path) -> None:
    arguments = ["sft", str(sft_recipe), "policy_file=nowhere.yaml", "--dry-run"]
    facts = json.loads(CliRunner().invoke(app, arguments, catch_exceptions=False).stdout)
    assert "nowhere.yaml" in facts["missing_inputs"]


def test_the_card_of_a_checkpoint_older_than_policies_names_none(
    sft_recipe: Path, pretrain_recipe: Path
) -> None:
    folder = train("pretrain", pretrain_recipe)
    old = json.loads((folder / "training.json").read_text())
    del old["policy"]
    (folder / "training.json").write_text(json.dumps(old))
    write_card(folder)
    assert "## Policy" not in (folder / "README.md").read_text()
