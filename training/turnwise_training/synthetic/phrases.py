"""Reads the phrases of the written demonstrations from the YAML files beside this one."""

from dataclasses import dataclass
from importlib import resources

import yaml

Pair = tuple[str, str]
"""What the user says and what the assistant replies."""


@dataclass(frozen=True)
class Talk:
    """Ways to say one thing and the replies that fit every one of them."""

    said: list[str]
    replies: list[str]


class Phrases:
    """One file of phrases; a missing key is a KeyError, for the files ship with the code."""

    def __init__(self, name: str) -> None:
        text = resources.files("turnwise_training.synthetic").joinpath(f"{name}.yaml").read_text()
        self._values = yaml.safe_load(text)

    def lines(self, key: str) -> list[str]:
        """Return a list of phrases; `facts.pet.told` walks into mappings."""
        value = self._values
        for part in key.split("."):
            value = value[part]
        return [str(line) for line in value]

    def rows(self, key: str) -> list[list[str]]:
        """Return a list of lists of phrases."""
        return [[str(part) for part in row] for row in self._values[key]]

    def talks(self, key: str) -> list[Talk]:
        """Return a list of `said` and `replies`."""
        return [Talk(entry["said"], entry["replies"]) for entry in self._values[key]]

    def answers(self, key: str) -> list[Pair]:
        """Return a list of `asked` and `answer`."""
        return [(entry["asked"], entry["answer"]) for entry in self._values[key]]
