"""Every recipe that ships can be read, planned and dry-run, with or without its inputs."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from turnwise_training.cli import app
from turnwise_training.config import LadderConfig
from turnwise_training.errors import ConfigurationError
from turnwise_training.ladder import climb, plan
from turnwise_training.recipe import load_config
from turnwise_training.stages import STAGES

RECIPES = Path(__file__).parents[2] / "training" / "recipes"
LADDERS = sorted(RECIPES.glob("*/ladder.yaml"))
OTHER_FILES = {"ladder.yaml", "accelerate.yaml", "card.yaml"}
STAGE_OF = {"judge": "reward", "sft-practice": "sft"}
STAGE_RECIPES = sorted(path for path in RECIPES.glob("*/*.yaml") if path.name not in OTHER_FILES)


def test_there_is_a_ladder_for_the_starter_and_for_each_large_setting() -> None:
    assert [path.parent.name for path in LADDERS] == ["fsdp", "instructgpt-1.3b", "lora-7b", "starter"]


@pytest.mark.parametrize("recipe", STAGE_RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_dry_runs_and_names_what_is_missing(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stage = STAGE_OF.get(recipe.stem, recipe.stem)
    result = CliRunner().invoke(
        app, [stage, str(recipe), "data=nowhere", "--dry-run"], catch_exceptions=False
    )
    facts = json.loads(result.stdout)
    assert facts["config"]["output"]
    assert facts["bytes_per_parameter"] > 0
    folder = (
        "training/recipes" if stage == "constitution" else "nowhere"
    )  # which reads no data but evaluation's
    assert any(path.startswith(folder) for path in facts["missing_inputs"])


@pytest.mark.parametrize("ladder", LADDERS, ids=lambda path: path.parent.name)
def test_each_stage_of_a_ladder_reads_what_one_before_it_wrote(ladder: Path) -> None:
    planned = list(plan(load_config(LadderConfig, ladder, []), ladder.parent))
    written = {Path("base")}
    for each in planned:
        model = getattr(each.config, "model", None)
        assert not isinstance(model, Path) or model in written
        written.add(each.config.output)
    assert len(written) == len(planned) + 1


def test_rounds_fill_in_their_numbers() -> None:
    ladder = RECIPES / "lora-7b" / "ladder.yaml"
    outputs = [str(p.config.output) for p in plan(load_config(LadderConfig, ladder, []), ladder.parent)]
    assert outputs[1:] == [
        f"runs/lora/{name}"
        for number in (1, 2)
        for name in (f"rankings-{number}.jsonl", f"reward-{number}", f"policy-{number}")
    ]


def write(path: Path, content: object) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_climb_passes_over_what_is_finished_and_runs_the_rest_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(
        type(STAGES["sft"]), "run", lambda self, config, *, force: ran.append(str(config.output))
    )
    recipe = {"name": "x", "model": "m", "output": "o", "rows": {"talk": 1}}
    write(tmp_path / "sft.yaml", recipe)
    done, left = tmp_path / "done", tmp_path / "left"
    done.mkdir()
    (done / "model.safetensors").touch()
    rungs = [{"stage": "sft", "recipe": "sft.yaml", "set": {"output": str(path)}} for path in (done, left)]
    ladder = write(tmp_path / "ladder.yaml", {"before": rungs})
    climb(load_config(LadderConfig, ladder, []), tmp_path)
    assert ran == [str(left)]
    assert f"{done}: finished before" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rung", "message"),
    [
        ({"stage": "sfft", "recipe": "sft.yaml"}, "no stage 'sfft'"),
        ({"stage": "sft", "recipe": "absent.yaml"}, "no recipe at"),
        ({"stage": "sft", "recipe": "sft.yaml", "set": {"epoch": "2"}}, "did you mean 'epochs'"),
    ],
)
def test_a_ladder_is_checked_before_its_first_stage_runs(
    rung: dict[str, object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(STAGES["sft"]), "run", lambda self, config, *, force: pytest.fail("ran"))
    write(tmp_path / "sft.yaml", {"name": "x", "model": "m", "output": "o", "rows": {"talk": 1}})
    ladder = write(tmp_path / "ladder.yaml", {"before": [{"stage": "sft", "recipe": "sft.yaml"}, rung]})
    with pytest.raises(ConfigurationError, match=message):
        climb(load_config(LadderConfig, ladder, []), tmp_path)
