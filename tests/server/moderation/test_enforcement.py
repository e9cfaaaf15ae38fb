"""A policy comes into force, another takes its place, and detectors live as long as requests need them."""

import asyncio
from functools import partial
from pathlib import Path

import pytest
import structlog

from support.asgi_connection import until
from support.guarded_server import WordDetector
from support.policies import changed_policy, policy_file
from turnwise_server.chat.refusal.policy_file import LoadedPolicy
from turnwise_server.chat.refusal.policy_holder import PolicyHolder
from turnwise_server.chat.refusal.policy_stages import Detector as DetectorRule
from turnwise_server.errors import ConfigurationError
from turnwise_server.moderation.detector import Detector
from turnwise_server.moderation.enforcement import Enforcement, follow_policy

FIRST = {"id": "first", "kind": "hf_sequence_classification", "path": "builtin:safety"}
SECOND = {"id": "second", "kind": "hf_sequence_classification", "path": "builtin:safety"}


class Workshop:
    """Makes detectors, and knows those that it made."""

    def __init__(self) -> None:
        self.made: list[WordDetector] = []

    def make(self, rule: DetectorRule) -> Detector:
        if rule.path == "broken":
            raise ConfigurationError("there is no such detector")
        self.made.append(WordDetector(rule.id))
        return self.made[-1]


def open_detectors(workshop: Workshop) -> list[str]:
    return [each.id for each in workshop.made if not each.is_closed]


async def test_detectors_that_stay_the_same_are_kept() -> None:
    workshop = Workshop()
    enforcement = Enforcement(make=workshop.make)
    enforcement.enact(changed_policy({"detectors": [FIRST]}))
    enforcement.enact(changed_policy({"detectors": [FIRST, SECOND], "name": "other"}))
    await enforcement.tidy()
    assert open_detectors(workshop) == ["first", "second"]
    assert len(workshop.made) == 2
    await enforcement.close()
    assert open_detectors(workshop) == []


async def test_a_request_keeps_the_policy_that_it_began_with() -> None:
    workshop = Workshop()
    enforcement = Enforcement(make=workshop.make)
    enforcement.enact(changed_policy({"detectors": [FIRST]}))
    with enforcement.held() as layer:
        enforcement.enact(changed_policy({"detectors": [SECOND]}))
        await enforcement.tidy()
        assert open_detectors(workshop) == ["first", "second"]
        assert layer is not enforcement.layer
    await enforcement.tidy()
    assert open_detectors(workshop) == ["second"]
    await enforcement.close()


async def test_a_policy_whose_detectors_cannot_be_loaded_leaves_the_one_before(tmp_path: Path) -> None:
    workshop = Workshop()
    enforcement = Enforcement(make=workshop.make)
    file = policy_file(tmp_path, {"detectors": [FIRST]})
    holder = PolicyHolder(file)
    holder.enact = enforcement.enact
    enforcement.enact(holder.current)
    before = enforcement.layer
    policy_file(tmp_path, {"detectors": [FIRST, SECOND, SECOND | {"id": "third", "path": "broken"}]})
    assert not holder.refresh(must_read=True)
    assert holder.fault == "there is no such detector"
    assert enforcement.layer is before
    await enforcement.tidy()
    assert open_detectors(workshop) == ["first"]
    await enforcement.close()


async def test_a_reload_that_breaks_does_not_end_those_after_it(tmp_path: Path) -> None:
    holder = PolicyHolder(policy_file(tmp_path, {}))
    enacted: list[str] = []

    def enact(loaded: LoadedPolicy) -> None:
        enacted.append(loaded.policy.name)
        if loaded.policy.name == "broken":
            raise MemoryError

    holder.enact = enact
    asked = asyncio.Event()
    following = asyncio.create_task(follow_policy(holder, asked, None, interval_s=60))
    for name in ("broken", "mended"):
        policy_file(tmp_path, {"name": name})
        asked.set()
        await until(partial(enacted.__contains__, name))
    following.cancel()


def test_categories_that_no_detector_can_find_are_told() -> None:
    with structlog.testing.capture_logs() as lines:
        Enforcement(make=Workshop().make).enact(changed_policy({"detectors": [FIRST]}))
    (told, _) = lines
    assert (told["event"], told["stage"]) == ("categories_without_detector", "input")
    assert "hate" in told["categories"]
    assert "weapons" not in told["categories"]


def test_without_a_detector_that_can_be_loaded_nothing_begins() -> None:
    with pytest.raises(ConfigurationError):
        Enforcement(make=Workshop().make).enact(changed_policy({"detectors": [FIRST | {"path": "broken"}]}))
