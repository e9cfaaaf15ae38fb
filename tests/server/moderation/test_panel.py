"""The panel asks all detectors, the slow ones only where it is worth it, and says what could not be asked."""

import asyncio
from collections.abc import Mapping
from typing import Any

from support.guarded_server import WordDetector
from support.policies import changed_policy
from turnwise_server.chat.refusal.verdict import Place
from turnwise_server.moderation.detector import MAX_SAMPLES, Sample
from turnwise_server.moderation.panel import Asked, Panel
from turnwise_server.moderation.readings import Reading

QUICK = {"id": "quick", "kind": "hf_sequence_classification", "path": "builtin:safety"}
SLOW = {"id": "slow", "kind": "http", "url": "http://127.0.0.1:9/v1", "when": {"unsure": "quick"}}
REVIEWED = {"weapons": {"input": {"threshold": 0.5, "review": 0.2, "action": "refuse"}}}


class ScoreDetector(WordDetector):
    """Gives the score that a text spells."""

    async def score(self, samples: Any) -> Any:
        await super().score(samples)
        return [{"illicit/violent": float(sample.text)} for sample in samples]


def panel(*detectors: WordDetector, **changes: Any) -> Panel:
    rules = [QUICK | {"deadline_ms": 200}, SLOW][: len(detectors)]
    policy = changed_policy({"detectors": rules} | changes, REVIEWED).policy
    return Panel(policy, "input", {each.id: each for each in detectors})


async def read(panel: Panel, *texts: str) -> tuple[list[Reading], list[Asked]]:
    asked: list[Asked] = []
    places = [Place(turn=index) for index in range(len(texts))]
    return await panel.read([Sample(text) for text in texts], places, asked.append), asked


def weapons(readings: list[Reading]) -> list[float]:
    return [reading.categories["weapons"].score for reading in readings]


async def test_every_sample_has_the_reading_of_its_own_text() -> None:
    readings, asked = await read(panel(ScoreDetector("quick")), "0.1", "0.9", "0.3")
    assert weapons(readings) == [0.1, 0.9, 0.3]
    assert [reading.categories["weapons"].is_reached for reading in readings] == [False, True, False]
    assert [reading.categories["weapons"].place.turn for reading in readings] == [0, 1, 2]
    assert [each.detector for each in asked] == ["quick"]


async def test_detectors_are_asked_about_a_few_samples_at_a_time() -> None:
    sizes: list[int] = []

    class Counting(ScoreDetector):
        async def score(self, samples: Any) -> Any:
            sizes.append(len(samples))
            return await super().score(samples)

    readings, _ = await read(panel(Counting("quick")), *["0.1"] * (2 * MAX_SAMPLES + 1))
    assert sizes == [MAX_SAMPLES, MAX_SAMPLES, 1]
    assert len(readings) == 2 * MAX_SAMPLES + 1


async def test_a_slow_detector_judges_in_its_place_what_the_quick_one_is_unsure_of() -> None:
    slow = WordDetector("slow", {"illicit/violent": "0.3"})
    readings, _ = await read(panel(ScoreDetector("quick"), slow), "0.1", "0.3", "0.9")
    assert [sample.text for sample in slow.seen] == ["0.3", "0.9"]
    assert weapons(readings) == [0.1, 0.9, 0.02]
    assert [reading.categories["weapons"].detector for reading in readings] == ["quick", "slow", "slow"]
    assert [reading.labels["illicit/violent"].is_reached for reading in readings] == [False, True, False]


async def test_the_quick_detector_stands_where_the_slow_one_fails() -> None:
    readings, asked = await read(panel(ScoreDetector("quick"), WordDetector("slow", fails=True)), "0.9")
    assert weapons(readings) == [0.9]
    assert not readings[0].unchecked
    assert [(each.detector, each.error) for each in asked] == [("quick", None), ("slow", "failed")]


async def test_the_slow_detector_judges_everything_where_the_quick_one_fails() -> None:
    slow = WordDetector("slow")
    readings, _ = await read(panel(WordDetector("quick", fails=True), slow), "a", "a zorb")
    assert weapons(readings) == [0.02, 0.9]
    assert not readings[0].unchecked


async def test_the_slow_detector_judges_everything_at_a_stage_that_the_quick_one_does_not() -> None:
    rules = [QUICK | {"stage": ["output"]}, SLOW]
    slow = WordDetector("slow")
    readings, _ = await read(panel(WordDetector("quick"), slow, detectors=rules), "a", "a zorb")
    assert weapons(readings) == [0.02, 0.9]


async def test_what_a_failed_detector_covers_is_unchecked() -> None:
    readings, asked = await read(panel(WordDetector("quick", fails=True)), "a")
    assert readings[0].unchecked == {"weapons", "self_harm", "sexual_minors", "harassment"}
    assert [each.error for each in asked] == ["failed"]


async def test_a_detector_that_takes_too_long_has_failed() -> None:
    readings, asked = await read(panel(WordDetector("quick", delay_s=5)), "a")
    assert readings[0].unchecked
    assert [each.error for each in asked] == ["deadline"]


async def test_a_detector_in_shadow_decides_nothing_and_its_failure_leaves_no_gap() -> None:
    shadowed = [QUICK, SLOW | {"when": None}]
    for fails in (False, True):
        slow = WordDetector("slow", fails=fails)
        readings, _ = await read(
            panel(ScoreDetector("quick"), slow, detectors=shadowed, shadow=["slow"]), "0.1"
        )
        assert weapons(readings) == [0.1]
        assert not readings[0].unchecked
        assert ("slow" in readings[0].shadow) is not fails


async def test_shadow_disagreement_is_seen() -> None:
    shadowed: list[Mapping[str, Any]] = [QUICK, SLOW | {"when": None}]
    slow = WordDetector("slow", {"illicit/violent": "0.1"})
    asking = panel(ScoreDetector("quick"), slow, detectors=shadowed, shadow=["slow"])
    ((other, same), _) = await read(asking, "0.1", "0.2")
    assert other.disagrees("slow")
    assert not same.disagrees("slow")


async def test_detectors_are_asked_at_the_same_time() -> None:
    both = [QUICK, SLOW | {"when": None}]
    meeting = asyncio.Barrier(2)

    class Meeting(WordDetector):
        async def score(self, samples: Any) -> Any:
            async with asyncio.timeout(5):
                await meeting.wait()
            return await super().score(samples)

    readings, _ = await read(panel(Meeting("quick"), Meeting("slow"), detectors=both), "a zorb")
    assert weapons(readings) == [0.9]
