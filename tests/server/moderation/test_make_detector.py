"""From the policy's words to detectors, by kind; what cannot be made says whose fault it is."""

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from turnwise_server.chat.refusal.policy_file import DEFAULT_POLICY, load_policy
from turnwise_server.chat.refusal.policy_stages import Detector as DetectorRule
from turnwise_server.errors import ConfigurationError
from turnwise_server.moderation.detector import Sample
from turnwise_server.moderation.http_detector import HttpDetector
from turnwise_server.moderation.make_detector import make_detector

DOCUMENTATION = Path(__file__).parents[3] / "docs/detectors.md"


def rule(kind: Any, **keys: Any) -> DetectorRule:
    return DetectorRule(id="second", kind=kind, **keys)


async def test_a_list_of_phrases_becomes_a_detector_that_finds_them() -> None:
    detector = make_detector(rule("phrases", phrases={"legal": ("can I sue",)}))
    assert detector.id == "second"
    assert await detector.score([Sample("Can I sue?")]) == [{"legal": 1.0}]
    await detector.close()


async def test_a_server_is_not_asked_before_there_is_something_to_score() -> None:
    detector = make_detector(rule("http", url="http://127.0.0.1:9/v1", model="m"))
    assert isinstance(detector, HttpDetector)
    await detector.close()


async def test_every_detector_of_the_default_policy_can_be_made() -> None:
    for each in load_policy(DEFAULT_POLICY).policy.detectors:
        detector = make_detector(each)
        assert detector.id == each.id
        assert detector.labels
        await detector.close()


def test_the_detectors_of_the_documentation_have_the_form_of_the_policy() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", DOCUMENTATION.read_text(), re.DOTALL | re.MULTILINE)
    rules = [
        DetectorRule.model_validate_json(json.dumps(each))
        for block in blocks
        for each in yaml.safe_load(block)["detectors"]
    ]
    assert {each.kind for each in rules} == set(get_args(DetectorRule.model_fields["kind"].annotation))


@pytest.mark.parametrize(
    ("kind", "keys", "reason"),
    [
        ("http", {"url": "http://127.0.0.1:9/v1", "api_key_env": "NO_SUCH_KEY"}, "api_key_env.*NO_SUCH_KEY"),
        ("hf_sequence_classification", {"path": "nowhere"}, "nowhere"),
        ("hf_causal_guard", {"path": "nowhere"}, "nowhere"),
    ],
)
def test_what_cannot_be_made_names_the_detector_and_what_is_wrong(
    kind: str, keys: dict[str, str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ConfigurationError, match=f"detector 'second' of the policy: .*{reason}"):
        make_detector(rule(kind, **keys))
