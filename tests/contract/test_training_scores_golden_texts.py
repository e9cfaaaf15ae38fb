"""The shipped detector gives the golden texts the scores that the server's loader is held to as well."""

import json
from pathlib import Path

import numpy as np
import torch

from turnwise_training.safety.detector import load_detector

DETECTOR = Path(__file__).parents[2] / "models/safety"
GOLDEN = json.loads((Path(__file__).parent / "golden_safety.json").read_text())


def test_the_shipped_detector_gives_the_golden_scores() -> None:
    torch.set_num_threads(1)
    scores = load_detector(DETECTOR).scores([case["text"] for case in GOLDEN["cases"]])
    expected = np.array([[case["scores"][label] for label in GOLDEN["labels"]] for case in GOLDEN["cases"]])
    assert np.abs(scores - expected).max() < GOLDEN["tolerance"]


def test_the_golden_scores_are_of_the_shipped_detector() -> None:
    facts = json.loads((DETECTOR / "safety.json").read_text())
    assert GOLDEN["sha256"] == facts["sha256"]
    assert GOLDEN["thresholds"] == facts["thresholds"]
    assert GOLDEN["labels"] == facts["labels"]


def test_the_detector_ships_small_permissive_and_without_pickle() -> None:
    files = [path for path in DETECTOR.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors", ".md"}
    assert sum(path.stat().st_size for path in files) < 50_000_000
    facts = json.loads((DETECTOR / "safety.json").read_text())
    allowed = ("MIT", "Apache", "CC0", "CC-BY-4", "CC-BY-SA")
    assert facts["licences"] == "permissive"
    assert all(each["licence"].startswith(allowed) for each in facts["training"])


def test_the_shipped_figures_keep_the_bars() -> None:
    facts = json.loads((DETECTOR / "safety.json").read_text())
    for each in facts["held_out"]["sources"]:
        if not each["unsafe"]:
            assert each["rate"] <= (0.20 if each["kind"] == "hard_safe" else 0.03), each["source"]
    for each in facts["development"]["sources"]:
        if not each["unsafe"]:
            assert each["rate"] <= facts["false_refusals_allowed"][each["kind"]], each["source"]
