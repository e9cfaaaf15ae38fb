"""The benchmarks of the refusal layer: what they compare, and that they count what a policy does."""

from __future__ import annotations

from pathlib import Path

import held_out_refusals
import refusals
from support.guarded_server import WordDetector, stub_detectors
from turnwise_server.chat.refusal.policy_file import DEFAULT_POLICY, load_policy
from turnwise_server.moderation.layer import RefusalLayer


def guarded_layer(detector: WordDetector) -> RefusalLayer:
    loaded, make = load_policy(DEFAULT_POLICY), stub_detectors(detector)
    return RefusalLayer(loaded, {rule.id: make(rule) for rule in loaded.policy.detectors})


def test_what_is_added_is_the_median_of_pairs_not_the_difference_of_medians() -> None:
    times = {"off": [10.0, 100.0, 20.0], "async": [15.0, 101.0, 90.0]}
    assert refusals.added(times, "async", "off") == {"median_ms": 5.0, "p95_ms": 70.0}


def test_the_policies_of_the_benchmark_differ_in_how_replies_are_shown(tmp_path: Path) -> None:
    for mode in refusals.MODES:
        policy = load_policy(refusals.write_policy(tmp_path, mode)).policy
        assert policy.output.mode == mode
        assert policy.categories == load_policy(DEFAULT_POLICY).policy.categories


async def test_texts_are_counted_by_what_the_policy_does_with_them() -> None:
    layer = guarded_layer(WordDetector("words"))
    found = await held_out_refusals.measure_texts(
        layer, ["a zorb", "bread", "my glim", "soup", "salt", "milk"], [0.01], joins=True
    )
    alone = found["alone"]
    assert isinstance(alone, dict)
    assert (alone["n"], alone["refused"], alone["errors"]) == (6, 2, 0)
    assert alone["categories"] == {"weapons": 1, "self_harm": 1}
    assert found["self_harm_from"] == {"0.01": 6}
    assert isinstance(conversations := found["conversations"], dict)
    assert (conversations["n"], conversations["refused"]) == (1, 1)


async def test_what_could_not_be_judged_is_an_error_and_no_refusal() -> None:
    layer = guarded_layer(WordDetector("words", fails=True))
    found = await held_out_refusals.measure_texts(layer, ["a zorb"], [], joins=False)
    assert isinstance(alone := found["alone"], dict)
    assert (alone["n"], alone["refused"], alone["errors"]) == (0, 0, 1)
