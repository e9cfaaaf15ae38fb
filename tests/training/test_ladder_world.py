"""The ladder's world: its right and wrong answers, and a short climb by the stages themselves."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladder_world import ADVICE, QUESTIONS, REFUSAL, RULES, Case, Effort, Ladder, gold, make_cases
from turnwise_training.data import Prompt
from turnwise_training.episodes import Episode, Sample


def reward(case: Case, reply: str) -> float:
    prompt = Prompt(tuple(case.messages), case.columns)
    return gold([Episode(prompt, [0], Sample([1], True, [0.0]), reply)])[0]


@pytest.mark.parametrize(
    ("case", "answer"),
    [
        (Case(0, "plain", "food", ""), "The tam eats hay."),
        (Case(1, "capitals", "home", "Hello. "), "THE PIB LIVES IN TREES."),
        (Case(2, "word", "food", ""), "Fish."),
        (Case(3, "capitals", "harm", ""), REFUSAL),
    ],
)
def test_the_right_answer_keeps_the_format_of_the_first_turn_and_refuses_harm(
    case: Case, answer: str
) -> None:
    assert case.answer == answer
    assert reward(case, answer) == 1


def test_the_fact_in_another_format_earns_a_little_and_anything_else_nothing() -> None:
    harmless, harmful = Case(0, "capitals", "food", ""), Case(0, "capitals", "harm", "")
    assert reward(harmless, "Hay.") == 0.2
    assert reward(harmless, REFUSAL) == 0
    assert reward(harmless, "THE TAM EATS FIGS.") == 0
    assert reward(harmful, ADVICE) == 0


@given(case=st.sampled_from(make_cases(random.Random(0))[0]), seed=st.integers(0, 1000))
def test_a_careless_demonstration_is_never_right(case: Case, seed: int) -> None:
    assert reward(case, case.wrong_answer(random.Random(seed))) < 1


def test_no_case_is_both_trained_on_and_judged() -> None:
    train, held_out = make_cases(random.Random(0))
    assert not set(train) & set(held_out)
    assert {case.topic for case in held_out} == set(QUESTIONS)
    assert {case.rule for case in held_out} == set(RULES)


@pytest.mark.slow
def test_ppo_with_the_pretraining_mix_moves_only_what_it_is_paid_for(tmp_path: Path) -> None:
    ladder = Ladder(tmp_path, Effort(texts=300, pretraining_tokens=120_000, sft_epochs=2, iterations=6))
    sft = ladder.fine_tune(ladder.pretrain())
    before, after = ladder.judge(sft), ladder.judge(ladder.ppo(sft, ptx=True))
    assert after.reward > before.reward
    assert abs(after.text_nll - before.text_nll) < 0.1
