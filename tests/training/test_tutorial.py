"""The tutorial's files and commands work as they are printed, in order, up to a model that bare transformers loads."""

import re
import shlex
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

from turnwise_training.cli import app

ROOT = Path(__file__).parents[2]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
FILE = re.compile(r"`([\w-]+\.(?:csv|yaml))`:\n\n```\w+\n(.*?)```", re.DOTALL)
SHORTER = {"sft": ["epochs=1"], "ppo": ["iterations=2"]}
"""What keeps the test short; nothing else differs from what is printed."""
COMMAND = re.compile(r"^turnwise-train (.*)$", re.MULTILINE)


@pytest.mark.slow
def test_the_tutorial_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").symlink_to(ROOT / "models")
    for name, content in FILE.findall(TUTORIAL):
        (tmp_path / name).write_text(content)
    commands = [shlex.split(line) for line in COMMAND.findall(TUTORIAL)]
    assert [command[0] for command in commands] == ["data", "sft", "sft", "sample", "reward", "ppo", "report"]
    for command in commands:
        result = CliRunner().invoke(app, command + SHORTER.get(command[0], []), catch_exceptions=False)
        assert result.exit_code == 0, result.output
    AutoTokenizer.from_pretrained(tmp_path / "runs/shop/ppo")
    AutoModelForCausalLM.from_pretrained(tmp_path / "runs/shop/ppo")
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "runs/shop/reward")
    assert (tmp_path / "runs/shop-ppo/report.html").stat().st_size > 10_000
