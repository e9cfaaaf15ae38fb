"""The figures of an iteration, computed by hand, and alarms that ring when they should and only then."""

import math
from collections.abc import Callable

import pytest
import torch

from turnwise_training.data import Prompt
from turnwise_training.episodes import Episode, Experience, Sample
from turnwise_training.monitors import WINDOW, Alarms, correlation, iteration_figures

ACTED = torch.tensor([[1, 1, 1], [1, 0, 0]])
GARBAGE = 1e9


def episode(ids: list[int], *, ended: bool = True, reply: str = "yes") -> Episode:
    prompt = Prompt(({"role": "user", "content": "well?"},))
    return Episode(prompt, [1, 2], Sample(ids, ended, [0.0] * len(ids)), reply)


def figures(**changed: object) -> dict[str, float]:
    """Return the figures of two answers, of three tokens and of one, with garbage after the second's end."""
    given: dict[str, object] = {
        "episodes": [episode([5, 5, 6], ended=False, reply="1. a\n2. b"), episode([6])],
        "logp": torch.tensor([[-1.0, -2.0, -1.0], [-0.5, GARBAGE, GARBAGE]]),
        "ref": torch.tensor([[-2.0, -2.0, -1.5], [-1.0, -GARBAGE, 0.0]]),
        "entropy": torch.tensor([[1.0, 2.0, 3.0], [0.5, GARBAGE, GARBAGE]]),
        "acted": ACTED,
        "values": torch.tensor([[0.0, 1.0, 2.0], [1.0, GARBAGE, GARBAGE]]),
        "advantages": torch.zeros(2, 3),
        "returns": torch.tensor([[1.0, 2.0, 3.0], [2.0, -GARBAGE, GARBAGE]]),
        "scores": torch.tensor([3.0, 1.0]),
        "held_out_scores": None,
        **changed,
    }
    scores, held_out_scores = given.pop("scores"), given.pop("held_out_scores")
    return iteration_figures(Experience(**given), scores, held_out_scores)  # type: ignore[arg-type]


def test_the_kl_is_summed_over_the_acted_tokens_of_each_answer() -> None:
    found = figures()
    assert found["kl_k1"] == pytest.approx((1.0 + 0.0 + 0.5 + 0.5) / 2)
    assert found["kl_token"] == pytest.approx(2.0 / 4)
    by_hand = sum(math.exp(-k1) - 1 + k1 for k1 in (1.0, 0.0, 0.5, 0.5)) / 2
    assert found["kl_k3"] == pytest.approx(by_hand)


def test_entropy_does_not_count_the_padded_tail() -> None:
    assert figures()["entropy"] == pytest.approx((1 + 2 + 3 + 0.5) / 4)


def test_values_that_miss_by_a_constant_explain_all_of_the_variance() -> None:
    assert figures()["explained_variance"] == pytest.approx(1.0)


def test_figures_without_a_meaning_are_left_out() -> None:
    found = figures(returns=torch.ones(2, 3), scores=torch.ones(2))
    assert "explained_variance" not in found
    assert "score_length_correlation" not in found
    assert "score_over_held_out" not in found


def test_scores_are_summed_up_and_set_against_the_held_out_ones() -> None:
    found = figures(held_out_scores=torch.tensor([1.0, 0.0]))
    assert (found["score_mean"], found["score_std"], found["score_max"]) == (2.0, 1.0, 3.0)
    assert (found["held_out_score_mean"], found["score_over_held_out"]) == (0.5, 1.5)


def test_the_answers_themselves_are_watched() -> None:
    found = figures()
    assert (found["length_mean"], found["unfinished"], found["list_share"]) == (2.0, 0.5, 0.5)
    assert (found["distinct_1"], found["distinct_2"]) == (2 / 4, 1.0)
    looped = figures(episodes=[episode([1, 2, 3, 4, 1, 2, 3, 4])] * 2)
    assert looped["repetition_4"] == pytest.approx(1 / 5)


def test_correlation_is_pearsons() -> None:
    rising = torch.tensor([1.0, 2.0, 3.0])
    assert correlation(rising, rising * 2 + 1) == pytest.approx(1.0)
    assert correlation(rising, -rising) == pytest.approx(-1.0)
    assert math.isnan(correlation(rising, torch.ones(3)))


HEALTHY = {"kl_k1": 5.0, "unfinished": 0.1, "entropy": 2.0, "length_mean": 30.0, "score_mean": 1.0}


@pytest.fixture
def ringing() -> Callable[..., list[str]]:
    """Return the names of the alarms that changed figures set off after three healthy iterations."""

    def check(**changed: float) -> list[str]:
        alarms = Alarms(kl_max=50.0)
        for _ in range(3):
            assert alarms.check(HEALTHY) == []
        return [alarm.name for alarm in alarms.check({**HEALTHY, **changed})]

    return check


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("kl", {"kl_k1": 50.1}),
        ("kl", {"kl_k1": math.nan}),
        ("unfinished", {"unfinished": 0.51}),
        ("entropy", {"entropy": 0.99}),
        ("length", {"length_mean": 61.0}),
        ("length", {"length_mean": 14.9}),
    ],
)
def test_each_alarm_rings_alone(
    ringing: Callable[..., list[str]], name: str, changed: dict[str, float]
) -> None:
    assert ringing(**changed) == [name]


@pytest.mark.parametrize(
    "changed",
    [{"kl_k1": 50.0}, {"unfinished": 0.5}, {"entropy": 1.0}, {"length_mean": 60.0}, {"length_mean": 15.0}],
)
def test_figures_at_the_limit_are_silent(
    ringing: Callable[..., list[str]], changed: dict[str, float]
) -> None:
    assert ringing(**changed) == []


def test_only_the_kl_stops_a_run_and_every_message_says_what_to_change() -> None:
    alarms = Alarms(kl_max=1.0)
    for _ in range(3):
        alarms.check({**HEALTHY, "kl_k1": 0.0})
    bad = {"kl_k1": 2.0, "unfinished": 0.9, "entropy": 0.1, "length_mean": 300.0, "score_mean": 1.0}
    found = alarms.check(bad)
    assert [alarm.name for alarm in found if alarm.stops] == ["kl"]
    assert len(found) == 4
    assert all("beta" in alarm.message or "max_new_tokens" in alarm.message for alarm in found)


def test_an_alarm_is_new_only_when_it_begins() -> None:
    alarms = Alarms(kl_max=50.0)
    seen = [alarms.check({**HEALTHY, "unfinished": share}) for share in (0.9, 0.9, 0.1, 0.9)]
    assert [[alarm.is_new for alarm in found] for found in seen] == [[True], [False], [], [True]]


def drift(alarms: Alarms, *, score: float, held_out: float, iterations: int) -> list[str]:
    """Return the names of all alarms while both scores move by a step an iteration, with a little noise."""
    names = []
    for number in range(iterations):
        noise = 0.01 * (-1) ** number
        moved = {
            "score_mean": score * number + noise,
            "held_out_score_mean": held_out * number + noise,
        }
        names += [alarm.name for alarm in alarms.check({**HEALTHY, **moved})]
    return names


def test_a_score_that_rises_while_the_held_out_score_falls_rings() -> None:
    assert drift(Alarms(kl_max=50.0), score=0.1, held_out=-0.05, iterations=2 * WINDOW) == ["proxy"]


@pytest.mark.parametrize(("score", "held_out"), [(0.1, 0.05), (-0.1, -0.05), (0.0, -0.05), (0.1, 0.0)])
def test_scores_that_do_not_part_are_silent(score: float, held_out: float) -> None:
    assert drift(Alarms(kl_max=50.0), score=score, held_out=held_out, iterations=3 * WINDOW) == []


def test_resumed_alarms_ring_as_if_never_stopped() -> None:
    whole, first, second = Alarms(kl_max=50.0), Alarms(kl_max=50.0), Alarms(kl_max=50.0)
    expected = drift(whole, score=0.1, held_out=-0.05, iterations=15)
    assert drift(first, score=0.1, held_out=-0.05, iterations=15) == expected
    second.load_state_dict(first.state_dict())
    later = {**HEALTHY, "score_mean": 9.0, "held_out_score_mean": -9.0, "entropy": 0.5}
    for _ in range(8):
        assert second.check(later) == whole.check(later)
    assert second.state_dict() == whole.state_dict()
