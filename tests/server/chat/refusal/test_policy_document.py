"""docs/policy.md explains every key of the policy in the words of the code, and its example is a policy."""

import re
import typing
from pathlib import Path

import pytest
from pydantic import BaseModel

from turnwise_server.chat.refusal.policy import Policy
from turnwise_server.chat.refusal.policy_file import parse_policy
from turnwise_server.chat.refusal.yaml_lines import YamlFault

DOCUMENT = (Path(__file__).parents[4] / "docs/policy.md").read_text(encoding="utf-8")


def parts(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Return every part of the policy by its name."""
    found = {model.__name__: model}
    for info in model.model_fields.values():
        for part in _models_in(info.annotation):
            found |= parts(part)
    return found


def _models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for each in typing.get_args(annotation) for model in _models_in(each)]


ROWS = re.findall(r"^\| `(\w+)` \| ([^|]*) \| ([^|]+) \|$", DOCUMENT, re.MULTILINE)
KEYS = [
    (name, key, str(info.description))
    for name, part in parts(Policy).items()
    for key, info in part.model_fields.items()
]


@pytest.mark.parametrize(("part", "key", "description"), KEYS, ids=[f"{part}.{key}" for part, key, _ in KEYS])
def test_every_key_is_documented_as_it_is(part: str, key: str, description: str) -> None:
    assert (key, description) in {(row[0], row[2]) for row in ROWS}


def test_no_key_is_documented_that_does_not_exist() -> None:
    assert sorted((key, meaning) for key, _, meaning in ROWS) == sorted((key, text) for _, key, text in KEYS)


def test_the_example_is_a_policy() -> None:
    example = re.search(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
    assert example
    assert parse_policy(example[1].encode()).policy.name == "family"


def test_the_error_that_is_shown_is_the_one_that_is_told() -> None:
    example = re.search(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
    assert example
    with pytest.raises(YamlFault) as fault:
        parse_policy(example[1].replace("threshold", "treshold", 1).encode())
    assert f"policy.yaml:{fault.value.line}: {fault.value.reason}`" in DOCUMENT
