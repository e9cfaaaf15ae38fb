"""Policies for tests: the one that ships, with some of it changed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from support.policy_cases import DEFAULT
from turnwise_server.chat.refusal.policy_file import LoadedPolicy, parse_policy

_DEFAULT: dict[str, Any] = yaml.safe_load(DEFAULT.read_text())


def policy_text(changes: Mapping[str, Any], categories: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """Return the policy with other top-level keys, and with keys of some categories replaced."""
    policy = copy.deepcopy(_DEFAULT) | dict(changes)
    for category in policy["categories"]:
        category |= (categories or {}).get(category["id"], {})
    return yaml.safe_dump(policy, sort_keys=False)


def changed_policy(
    changes: Mapping[str, Any], categories: Mapping[str, Mapping[str, Any]] | None = None
) -> LoadedPolicy:
    """Return the changed policy as it is read."""
    return parse_policy(policy_text(changes, categories).encode())


def policy_file(
    folder: Path, changes: Mapping[str, Any], categories: Mapping[str, Mapping[str, Any]] | None = None
) -> Path:
    """Write the changed policy to a file."""
    file = folder / "policy.yaml"
    file.write_text(policy_text(changes, categories))
    return file
