"""`turnwise-train data check` and `data convert`, as a user meets them."""

import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner, Result

from turnwise_training.cli import app, main
from turnwise_training.data import read_rows
from turnwise_training.errors import ConfigurationError, DataError, RunError
from turnwise_training.tokenizer import save_tokenizer


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, words)])


@pytest.fixture
def model(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A folder with a tokenizer."""
    save_tokenizer(tokenizer, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def faq(tmp_path: Path) -> Path:
    path = tmp_path / "faq.csv"
    path.write_text(
        'question,answer,user\nHi,Hello.,ann\nHi,Hello.,ann\n"Where?","' + "Far away. " * 30 + '",bob\n'
    )
    return path


def test_check_counts_rows_and_shows_the_first_with_its_loss_in_brackets(faq: Path) -> None:
    result = run("check", faq)
    assert result.exit_code == 0
    assert f"{faq}: 3 rows\n" in result.stdout
    assert "kinds      conversations 3\n" in result.stdout
    assert "formats    question and answer 3\n" in result.stdout
    assert "duplicates 1 rows equal an earlier one\n" in result.stdout
    assert "users      2, the busiest with 2 rows\n" in result.stdout
    assert result.stdout.endswith("user: Hi\nassistant: [[Hello.]]\n")


def test_check_measures_tokens_drops_long_rows_and_renders_the_mask(faq: Path, model: Path) -> None:
    result = run("check", faq, "--tokenizer", model, "--max-tokens", 100)
    assert f"{faq}: 2 rows; dropped 1: over 100 tokens 1\n" in result.stdout
    assert "all up to" in result.stdout
    rendered = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[[Hello.<|im_end|>]]\n"
    assert rendered in result.stdout


def test_check_shows_every_kind_of_row(tmp_path: Path, model: Path) -> None:
    hi = [{"role": "user", "content": "Hi"}]
    rows = {
        "text": ({"text": "Once."}, "[[Once.]]", "[[Once.]]"),
        "prompts": ({"prompt": hi}, "user: Hi", "Hi<|im_end|>\n<|im_start|>assistant\n"),
        "thumbs": (
            {"prompt": hi, "completion": "Yes.", "label": True},
            "user: Hi\nassistant: [[Yes.]]",
            "[[Yes.<|im_end|>]]",
        ),
        "rankings": (
            {"prompt": hi, "completions": [{"content": "Yes.", "rank": 1}, {"content": "No.", "rank": 2}]},
            "user: Hi\nassistant: [[Yes.]]\nuser: Hi\nassistant: [[No.]]",
            "[[Yes.<|im_end|>]]",
        ),
    }
    for name, (row, plain, rendered) in rows.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text(json.dumps(row) + "\n")
        assert plain in run("check", path).stdout
        assert rendered in run("check", path, "--tokenizer", model).stdout


def test_check_goes_on_after_a_broken_file_and_fails_in_the_end(tmp_path: Path, faq: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "fine"}\n{"text": 5}\n')
    result = run("check", broken, faq)
    assert result.exit_code == 2
    assert f"{broken} line 2: expected a string 'text'" in result.stderr
    assert "3 rows" in result.stdout


def test_a_row_without_a_token_to_train_on_is_named(tmp_path: Path, model: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "Once upon."}\n{"text": "."}\n')
    result = run("check", path, "--tokenizer", model)
    assert result.exit_code == 2
    assert f"{path} line 2: no token to train on" in result.stderr


def test_lengths_without_a_tokenizer_are_refused(faq: Path) -> None:
    result = run("check", faq, "--max-tokens", 10)
    assert isinstance(result.exception, ConfigurationError)
    assert "--max-tokens needs --tokenizer" in str(result.exception)


def test_convert_writes_native_rows_once(faq: Path, tmp_path: Path) -> None:
    output = tmp_path / "faq.jsonl.zst"
    result = run("convert", faq, output)
    assert result.stdout == f"{output}: 3 rows of 3 (question and answer 3)\n"
    assert list(read_rows(output)) == list(read_rows(faq))
    assert isinstance(run("convert", faq, output).exception, RunError)
    assert run("convert", faq, output, "--force").exit_code == 0


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--shared-prefix", "200"], 2),
        (["--per-user", "1"], 2),
        (["--drop-personal-data"], 3),
        (["--tokenizer", "model", "--max-tokens", "100"], 2),
        (["--shared-prefix", "200", "--tokenizer", "model", "--max-tokens", "100"], 1),
    ],
)
def test_convert_drops_what_is_asked(
    faq: Path, model: Path, tmp_path: Path, options: list[str], left: int
) -> None:
    words = [str(model) if option == "model" else option for option in options]
    result = run("convert", faq, tmp_path / "rows.jsonl", *words)
    assert f": {left} rows of 3 " in result.stdout
    assert len(list(read_rows(tmp_path / "rows.jsonl"))) == left


def test_convert_ranks_what_votes_tell_apart(tmp_path: Path) -> None:
    prompt = [{"role": "user", "content": "Hi"}]
    votes = [
        {"prompt": prompt, "response": "No.", "reward": 0},
        {"prompt": prompt, "response": "Yes.", "reward": 1},
    ]
    (tmp_path / "votes.jsonl").write_text("".join(json.dumps(vote) + "\n" for vote in votes))
    run("convert", tmp_path / "votes.jsonl", tmp_path / "rankings.jsonl", "--votes-as-rankings")
    written = json.loads((tmp_path / "rankings.jsonl").read_text())
    assert written["completions"] == [{"content": "No.", "rank": 2}, {"content": "Yes.", "rank": 1}]


def test_convert_writes_nothing_where_a_row_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "Once."}\n{}\n')
    result = run("convert", path, tmp_path / "new.jsonl")
    assert isinstance(result.exception, DataError)
    assert [each.name for each in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_path_that_cannot_be_written_is_named_in_one_line(
    faq: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    written = tmp_path / "file/rows.jsonl"
    monkeypatch.setattr("sys.argv", ["turnwise-train", "data", "convert", str(faq), str(written)])
    with pytest.raises(SystemExit, match="2"):
        main()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("turnwise-train: ")
    assert str(tmp_path / "file") in line
