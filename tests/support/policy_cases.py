"""Policy files that both readers are held to: valid ones with their digests, and ways in which one can be wrong."""

from dataclasses import dataclass
from pathlib import Path

import yaml

FOLDER = Path(__file__).parents[1] / "contract/policies"
MINIMAL = FOLDER / "minimal.yaml"
REWORDED = FOLDER / "reworded.yaml"
DEFAULT = FOLDER.parents[2] / "policies/default.yaml"
MINIMAL_SHA256 = "6b40c97dd8c706c0c77db632e1ff9963b342c66cd97d58f63033440f460f6ff5"


@dataclass(frozen=True)
class InvalidPolicy:
    """A way to break minimal.yaml, and what its reader has to say."""

    name: str
    content: bytes
    line: int
    reason: str
    concerns_training: bool


def _read() -> list[InvalidPolicy]:
    minimal = MINIMAL.read_text()
    cases = []
    for entry in yaml.safe_load((FOLDER / "invalid.yaml").read_text()):
        assert minimal.count(entry["replace"]) >= 1, entry["name"]
        content = minimal.replace(entry["replace"], entry["with"], 1).encode()
        concerns_training = entry.get("training", True)
        cases.append(InvalidPolicy(entry["name"], content, entry["line"], entry["reason"], concerns_training))
    return cases


INVALID = _read()
