"""`turnwise-train safety` from a recipe to a directory, with an encoder of one layer and invented harmless texts."""

import json
import random
from pathlib import Path

import pytest
import yaml
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel
from typer.testing import CliRunner

from turnwise_training.cli import app
from turnwise_training.errors import ConfigurationError, RunError
from turnwise_training.policy import read_policy
from turnwise_training.safety.detector import load_detector

NOUNS = ("apple", "boat", "cloud", "drum", "engine", "forest", "guitar", "harbour", "island", "jacket")
VERBS = ("paint", "carry", "mend", "find", "draw", "wash", "sell", "borrow", "admire", "measure")


def sentences(count: int, *, seed: int, ending: str) -> list[str]:
    """Return sentences of nouns and verbs in random order."""
    draw = random.Random(seed)
    return [
        f"How do I {draw.choice(VERBS)} a {' '.join(draw.sample(NOUNS, 3))} {ending}" for _ in range(count)
    ]


def write_world(folder: Path) -> Path:
    """Write an encoder, labelled texts whose unsafe ones end in `violet`, and a recipe; return the recipe."""
    encoder = folder / "encoder"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "How", "do", "I", "a", *NOUNS, *VERBS, "violet", "green"]
    tokenizer = Tokenizer(WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    shape = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    BertModel(shape).save_pretrained(encoder)
    tokenizer.save(str(encoder / "tokenizer.json"))
    rows = [
        {
            "prompt": text,
            "label": label,
            "category": category,
            "source": f"{role}_{label}",
            "license": "MIT",
        }
        for seed, role in enumerate(("train", "tune", "final"))
        for label, category, ending in (("safe", "none", "green"), ("unsafe", "fraud", "violet"))
        for text in sentences(40, seed=seed, ending=ending)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "output": str(folder / "out"),
        "data": str(folder),
        "labelled": ["rows.jsonl"],
        "ordinary": {},
        "encoder": {"path": str(encoder), "epochs": 1},
        "linear": {"buckets": 256, "epochs": 2},
        "development": ["tune_safe", "tune_unsafe"],
        "held_out": ["final_safe", "final_unsafe"],
        "frames_each": 1,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_a_recipe_becomes_a_detector_with_its_card(tmp_path: Path) -> None:
    recipe = write_world(tmp_path)
    done = CliRunner().invoke(app, ["safety", str(recipe)], catch_exceptions=False)
    assert done.exit_code == 0
    out = tmp_path / "out"
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert files == {
        "README.md", "config.json", "model.safetensors", "safety.json", "tokenizer.json",
        "linear/linear.json", "linear/weights.safetensors",
    }  # fmt: skip
    facts = json.loads((out / "safety.json").read_text())
    assert facts["licences"] == "permissive"
    assert {each["source"] for each in facts["training"]} == {"train_safe", "train_unsafe", "contrasts"}
    assert {each["source"] for each in facts["held_out"]["sources"]} == {"final_safe", "final_unsafe"}
    assert json.loads((out / "config.json").read_text())["problem_type"] == "multi_label_classification"
    assert facts["policy"] == read_policy().record
    card = (out / "README.md").read_text()
    assert "| train_unsafe | MIT | 0 |" in card
    assert facts["policy"]["sha256"] in card
    scores = load_detector(out).scores(["How do I paint a boat", "violet"])
    assert scores.shape == (2, 13)
    with pytest.raises(RunError, match="holds a detector"):
        CliRunner().invoke(app, ["safety", str(recipe)], catch_exceptions=False)


def test_training_goes_on_from_a_detector_and_keeps_a_share_of_its_weights(tmp_path: Path) -> None:
    recipe = str(write_world(tmp_path))
    first = tmp_path / "out"

    def trained(*changes: str) -> bytes:
        CliRunner().invoke(app, ["safety", recipe, "--force", *changes], catch_exceptions=False)
        return (first.with_name("next") / "model.safetensors").read_bytes()

    CliRunner().invoke(app, ["safety", recipe], catch_exceptions=False)
    onwards = (f"encoder.path={first}", f"output={first.with_name('next')}")
    whole = (first / "model.safetensors").read_bytes()
    assert trained(*onwards, "encoder.kept=1.0") == whole
    assert trained(*onwards, "encoder.kept=0.5") != whole


def test_a_dry_run_shows_what_each_role_would_read(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["safety", str(write_world(tmp_path)), "--dry-run"])
    shown = json.loads(done.stdout)
    assert {each["source"] for each in shown["development"]} == {"tune_safe", "tune_unsafe"}
    assert not (tmp_path / "out").exists()


def test_an_encoder_that_is_not_there_is_named(tmp_path: Path) -> None:
    recipe = write_world(tmp_path)
    with pytest.raises(ConfigurationError, match="no encoder at nowhere"):
        CliRunner().invoke(app, ["safety", str(recipe), "encoder.path=nowhere"], catch_exceptions=False)


def test_licences_must_be_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'licences'"):
        CliRunner().invoke(
            app, ["safety", str(write_world(tmp_path)), "--licences", "some"], catch_exceptions=False
        )


def test_evaluate_safety_prints_and_writes_figures_of_any_labelled_file(tmp_path: Path) -> None:
    recipe = write_world(tmp_path)
    CliRunner().invoke(app, ["safety", str(recipe)], catch_exceptions=False)
    figures = tmp_path / "figures.json"
    done = CliRunner().invoke(
        app,
        [
            "evaluate",
            "safety",
            str(tmp_path / "rows.jsonl"),
            "--detector",
            str(tmp_path / "out"),
            "--output",
            str(figures),
        ],
        catch_exceptions=False,
    )
    assert "| final_safe | harmless, ordinary | 40 |" in done.stdout
    assert "base rate of 0.500" in done.stdout
    assert "paint" not in done.stdout + figures.read_text()
    assert json.loads(figures.read_text())["columns"]["detector"]["requests"]["n"] == 240


def test_evaluate_still_takes_a_recipe(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no recipe at nowhere"):
        CliRunner().invoke(app, ["evaluate", "nowhere.yaml"], catch_exceptions=False)
    with pytest.raises(ConfigurationError, match="no recipe at nowhere"):
        CliRunner().invoke(app, ["evaluate", "--force", "nowhere.yaml"], catch_exceptions=False)
