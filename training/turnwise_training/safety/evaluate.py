"""`turnwise-train evaluate safety`: a detector's figures on any labelled file."""

import json
from collections.abc import Sequence
from pathlib import Path

from turnwise_training.errors import DataError
from turnwise_training.safety.detector import load_detector, whole_logits
from turnwise_training.safety.judge import judge, table
from turnwise_training.safety.rows import read_labelled


def evaluate_files(files: Sequence[Path], *, detector: Path, output: Path | None) -> str:
    """Return the table of the rows of `files`, and write the figures to `output` as JSON; neither holds a text."""
    loaded = load_detector(detector)
    rows = [row for path in files for row in read_labelled(path)]
    if not rows:
        raise DataError(f"{', '.join(map(str, files))}: no safe or unsafe rows to judge")
    figures = judge(rows, whole_logits(loaded.scorer, [row.text for row in rows]), loaded.calibration)
    if output is not None:
        output.write_text(json.dumps(figures, indent=2) + "\n")
    return table(figures)
