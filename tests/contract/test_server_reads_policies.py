"""The server reads the golden policy files, and says of each wrong one in which line it is wrong and why."""

import re
from pathlib import Path

import pytest

from support.policy_cases import DEFAULT, INVALID, MINIMAL, MINIMAL_SHA256, REWORDED, InvalidPolicy
from turnwise_server.chat.refusal.policy_file import DEFAULT_POLICY, load_policy
from turnwise_server.errors import PolicyError


@pytest.mark.parametrize("file", [MINIMAL, REWORDED])
def test_the_server_gives_a_policy_its_digest_however_it_is_written(file: Path) -> None:
    assert load_policy(file).sha256 == MINIMAL_SHA256


@pytest.mark.parametrize("case", INVALID, ids=[case.name for case in INVALID])
def test_the_server_names_file_line_and_reason(case: InvalidPolicy, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_bytes(case.content)
    with pytest.raises(PolicyError, match=rf"policy\.yaml:{case.line}:.*{re.escape(case.reason)}"):
        load_policy(file)


def test_the_server_ships_the_default_policy() -> None:
    assert DEFAULT_POLICY.read_bytes() == DEFAULT.read_bytes()
    assert load_policy(DEFAULT_POLICY).policy.name == "default"


@pytest.mark.parametrize(
    ("replaced", "by", "words"),
    [
        ("id: honesty", "id: Be honest", r"principles\[0\]\.id: must be small letters, digits"),
        ("        en: I can't help with that.", "        en:", r"text\.en: must be text; .* quotes"),
        (
            "      text:\n        en: I can't",
            "      text: [a]\n    caution:\n      prefix:\n        en: I can't",
            "`key: v",
        ),
        ("{action: caution}", "", "input: here must stand keys with values, each as `key: value`"),
        ("        en: I can't", "        english: I can't", "must be a language such as en"),
        ("phrases: {advice: [my symptoms]}", "phrases: {advice: my symptoms}", "must be a list"),
        ("[my symptoms]", "[' ']", r"phrases\.advice\[0\]: must not be empty"),
        ("override:", "leak: {canary: yes}\noverride:", r"leak\.canary: must be true or false"),
        ("override:", "audit: {rotate_mb: 1.5}\noverride:", r"audit\.rotate_mb: must be a whole number"),
    ],
)
def test_the_reason_is_in_the_words_of_yaml_not_of_the_program(
    replaced: str, by: str, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "policy.yaml"
    minimal = MINIMAL.read_text()
    assert replaced in minimal
    file.write_text(minimal.replace(replaced, by, 1))
    with pytest.raises(PolicyError, match=words):
        load_policy(file)


def test_an_empty_file_is_told_what_belongs_into_it(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.touch()
    with pytest.raises(PolicyError, match=r"policy\.yaml:1: here must stand keys with values"):
        load_policy(file)
