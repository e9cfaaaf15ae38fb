"""Recipes: an unknown or ill-typed key stops the run with a message that helps."""

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from turnwise_training.config import Phase, PretrainConfig, SFTConfig
from turnwise_training.errors import ConfigurationError
from turnwise_training.recipe import as_json, load_config

RECIPES = Path(__file__).parents[2] / "training/recipes"


def test_later_values_win_default_file_command_line(pretrain_recipe: Path) -> None:
    config = load_config(
        PretrainConfig, pretrain_recipe, ["optimization.grad_clip=0.5", "tokens=99", "compile=true"]
    )
    assert config.optimization.grad_clip == 0.5
    assert config.optimization.betas == (0.9, 0.95)
    assert config.tokens == 99
    assert config.compile is True
    assert config.phases[0] == Phase(0.7, 32, "base")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tokns=5", "unknown key 'tokns'; did you mean 'tokens'?"),
        (
            "optimization.learning_rat=1",
            "unknown key 'optimization.learning_rat'; did you mean 'optimization.learning_rate'",
        ),
        ("tokens=many", "'tokens' must be int, not 'many'"),
        ("compile=1", "'compile' must be bool"),
        ("precision=float8", "'precision' must be"),
        ("phases=[{share: 1}]", r"missing key 'phases\[0\]\.seq_len'"),
        ("mixes.base.text=much", r"'mixes\.base\.text' must be float"),
        ("optimization=3", "'optimization' must hold keys and values"),
        ("tokens", "'tokens' is no override; write key=value"),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_it(
    pretrain_recipe: Path, override: str, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_config(PretrainConfig, pretrain_recipe, [override])


def test_a_missing_key_or_recipe_is_named(tmp_path: Path) -> None:
    recipe = tmp_path / "sft.yaml"
    recipe.write_text("name: x\n")
    with pytest.raises(ConfigurationError, match="missing key 'model'"):
        load_config(SFTConfig, recipe, [])
    with pytest.raises(ConfigurationError, match="no recipe at"):
        load_config(SFTConfig, tmp_path / "absent.yaml", [])


def test_a_configuration_is_frozen(sft_recipe: Path) -> None:
    config = load_config(SFTConfig, sft_recipe, [])
    with pytest.raises(FrozenInstanceError):
        config.epochs = 5  # type: ignore[misc]


@pytest.mark.parametrize(("kind", "name"), [(PretrainConfig, "pretrain"), (SFTConfig, "sft")])
def test_the_recipes_of_the_starter_load(kind: type[PretrainConfig] | type[SFTConfig], name: str) -> None:
    config = load_config(kind, RECIPES / f"starter/{name}.yaml", [])
    facts = as_json(config)
    assert isinstance(facts, dict)
    assert facts["data"] == "../shared/data/permissive"
