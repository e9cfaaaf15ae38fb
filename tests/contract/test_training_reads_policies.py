"""Training reads the golden policy files as the server does, and refuses the wrong ones in the same lines."""

from pathlib import Path

import pytest

from support.policy_cases import DEFAULT, INVALID, MINIMAL, MINIMAL_SHA256, REWORDED, InvalidPolicy
from turnwise_training.errors import ConfigurationError
from turnwise_training.policy import DEFAULT_POLICY, read_policy


@pytest.mark.parametrize("file", [MINIMAL, REWORDED])
def test_training_gives_a_policy_its_digest_however_it_is_written(file: Path) -> None:
    assert read_policy(file).sha256 == MINIMAL_SHA256


@pytest.mark.parametrize(
    "case",
    [case for case in INVALID if case.concerns_training],
    ids=[case.name for case in INVALID if case.concerns_training],
)
def test_training_names_file_and_line(case: InvalidPolicy, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_bytes(case.content)
    with pytest.raises(ConfigurationError, match=rf"policy\.yaml:{case.line}: "):
        read_policy(file)


def test_training_ships_the_default_policy() -> None:
    assert DEFAULT_POLICY.read_bytes() == DEFAULT.read_bytes()
    assert read_policy().name == "default"


def test_a_safe_completion_names_help() -> None:
    crisis = next(category for category in read_policy(MINIMAL).categories if category.id == "crisis")
    assert crisis.safe_completion == {"en": "I'm glad you wrote. See findahelpline.com."}


def test_a_checkpoint_names_the_policy_it_was_trained_by() -> None:
    assert read_policy(MINIMAL).record == {"name": "minimal", "version": 1, "sha256": MINIMAL_SHA256}
