"""A policy for servers in a process of their own: all it knows is one made-up word, and it needs no classifier."""

from __future__ import annotations

from pathlib import Path

import yaml

from turnwise_server.chat.refusal.policy_file import DEFAULT_POLICY

WORD = "zorb"
REFUSAL = "I can't help with that, but I can tell you what it is made of."


def write_phrase_policy(folder: Path) -> Path:
    """Write the policy that ships with that word for all it detects, and short words for the refusal."""
    policy = yaml.safe_load(DEFAULT_POLICY.read_text("utf-8"))
    weapons = next(each for each in policy["categories"] if each["id"] == "weapons")
    weapons["refusal"]["text"] = {"en": REFUSAL}
    phrases = {"id": "words", "kind": "phrases", "stage": ["input", "output"], "phrases": {"weapons": [WORD]}}
    policy["detectors"] = [phrases]
    file = folder / "policy.yaml"
    file.write_text(yaml.safe_dump(policy, allow_unicode=True), "utf-8")
    return file
