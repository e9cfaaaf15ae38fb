"""The manifest beside rows that were made of a policy: what it is called, and which policy its rows teach."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from turnwise_training.errors import ConfigurationError
from turnwise_training.policy import Policy

FORMAT: Final = "turnwise-constitution-1"
MANIFEST: Final = "manifest.json"
DEMONSTRATIONS: Final = "demonstrations.jsonl"
PREFERENCES: Final = "preferences.jsonl"


def require_rows_of(policy: Policy, files: Iterable[Path]) -> None:
    """Raise ConfigurationError for a file of rows that another policy was made into.

    The checkpoint would record a policy that it was not taught. Files without a manifest beside them are anybody's.
    """
    for file in files:
        manifest = file.with_name(MANIFEST)
        if file.name not in (DEMONSTRATIONS, PREFERENCES) or not manifest.is_file():
            continue
        facts = json.loads(manifest.read_text())
        if facts.get("format") == FORMAT and facts["policy"]["sha256"] != policy.sha256:
            raise ConfigurationError(
                f"{file} was made of another policy ({facts['policy']['name']!r}, SHA-256 "
                f"{facts['policy']['sha256'][:12]}) than {policy.name!r}, {policy.sha256[:12]}; set `policy_file`, or "
                "run `turnwise-train constitution` again with --force"
            )
