"""Sampling answers to rank: native rows that the reward stage reads."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from turnwise_training.config import SampleConfig
from turnwise_training.data import Prompt, Ranking, read_rows
from turnwise_training.episodes import Episode, Sample
from turnwise_training.errors import ConfigurationError, RunError
from turnwise_training.prompts import REFERENCE
from turnwise_training.recipe import load_config
from turnwise_training.sample import describe, ranked, run_sample
from turnwise_training.sampling import Sampler


@pytest.fixture
def sample_recipe(
    tmp_path: Path,
    base_checkpoint: Path,
    write_source: Callable[[str, list[object]], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A recipe of three answers to each of four prompts, the longest one best."""
    prompts = [[{"role": "user", "content": f"Hello, I am number {n}."}] for n in range(20)]
    write_source("talk", [{"prompt": prompt} for prompt in prompts])
    (tmp_path / "judges.py").write_text(
        "def length(episodes):\n    return [len(e.reply) for e in episodes]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    recipe = {
        "model": str(base_checkpoint),
        "output": str(tmp_path / "ranked" / "rows.jsonl"),
        "data": str(tmp_path / "data"),
        "prompts": {"talk": 4},
        "answers": 3,
        "rank_by": [{"kind": "callable", "source": "judges:length"}],
        "sampling": {"max_new_tokens": 8, "precision": "float32"},
    }
    path = tmp_path / "sample.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_rows_are_rankings_by_the_reward(sample_recipe: Path) -> None:
    config = load_config(SampleConfig, sample_recipe, [])
    run_sample(config, force=False)
    rows = list(read_rows(config.output))
    assert len(rows) == 4
    for row in rows:
        assert isinstance(row, Ranking)
        assert row.prompt[-1]["role"] == "user"
        by_rank = sorted(row.completions, key=lambda completion: completion.rank)
        assert by_rank[0].rank == 1
        assert {completion.policy for completion in row.completions} == {"base"}
    assert sum(row.pairs for row in rows if isinstance(row, Ranking)) > 0


def test_without_a_reward_all_answers_tie(sample_recipe: Path) -> None:
    config = load_config(SampleConfig, sample_recipe, ["rank_by=[]"])
    run_sample(config, force=False)
    rows = [json.loads(line) for line in config.output.read_text().splitlines()]
    assert {completion["rank"] for row in rows for completion in row["completions"]} == {1}


def test_answers_differ_and_come_again_by_seed_at_any_batch(sample_recipe: Path) -> None:
    config = load_config(SampleConfig, sample_recipe, [])
    run_sample(config, force=False)
    first = config.output.read_text()
    run_sample(load_config(SampleConfig, sample_recipe, ["sampling.batch=5"]), force=True)
    assert config.output.read_text() == first
    contents = [c["content"] for c in json.loads(first.splitlines()[0])["completions"]]
    assert len(set(contents)) == 3
    run_sample(load_config(SampleConfig, sample_recipe, ["seed=2"]), force=True)
    assert config.output.read_text() != first


def test_a_file_is_never_replaced_without_force(sample_recipe: Path) -> None:
    config = load_config(SampleConfig, sample_recipe, [])
    config.output.parent.mkdir()
    config.output.write_text("mine")
    with pytest.raises(RunError, match="--force"):
        run_sample(config, force=False)
    assert config.output.read_text() == "mine"


def test_one_answer_is_no_ranking(sample_recipe: Path) -> None:
    with pytest.raises(ConfigurationError, match="two or more"):
        run_sample(load_config(SampleConfig, sample_recipe, ["answers=1"]), force=False)


def test_a_dry_run_counts_answers(sample_recipe: Path) -> None:
    config = load_config(SampleConfig, sample_recipe, [])
    assert describe(config) == {"answers": 12, "tokens_at_most": 96}


def episode(reply: str, reference: str) -> Episode:
    prompt = Prompt(({"role": "user", "content": "Hi"},), {REFERENCE: reference})
    return Episode(prompt, [1], Sample([2], ended=True, log_probs=[0.0]), reply)


def test_the_demonstration_stands_above_the_answers_and_is_not_one_of_them() -> None:
    episodes = [episode(reply, "Hello!") for reply in ("Hi.", "Hello!", "Yes.", "Hey.")]
    row = ranked(episodes, [0.5, 1.0, 0.0, 0.5], policy="sft", with_demonstration=True)
    assert [(c.content, c.rank, c.policy) for c in row.completions] == [
        ("Hello!", 1, "demonstration"),
        ("Hi.", 3, "sft"),
        ("Yes.", 4, "sft"),
        ("Hey.", 3, "sft"),
    ]


def test_prompts_whose_answers_all_meet_the_demonstration_give_no_row(
    sample_recipe: Path,
    write_source: Callable[[str, list[object]], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    talk: list[object] = [
        {
            "messages": [
                {"role": "user", "content": f"I am number {n}."},
                {"role": "assistant", "content": "Yes."},
            ]
        }
        for n in range(20)
    ]
    write_source("talk", talk)
    answer = Sampler.answer
    monkeypatch.setattr(
        Sampler, "answer", lambda *a, **k: [dataclasses.replace(e, reply="Yes.") for e in answer(*a, **k)]
    )
    config = load_config(SampleConfig, sample_recipe, ["with_demonstration=true", "answers=2"])
    run_sample(config, force=False)
    assert config.output.read_text() == ""
