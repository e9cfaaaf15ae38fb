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
