"""Reads the policy file for training: the principles, and how each category is refused.

The file is a contract with the server: both hold it to policies/policy.schema.json and give it the same digest.
Training leaves it to the server to check the parts that only the server carries out, such as detectors.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from turnwise_training.errors import ConfigurationError
from turnwise_training.policy_yaml import MAX_BYTES, Place, PolicyFault, PolicyYaml, read_policy_yaml

DEFAULT_POLICY: Final = Path(str(files(__package__).joinpath("policies/default.yaml")))
SCHEMA: Final[dict[str, Any]] = json.loads(
    files(__package__).joinpath("policies/policy.schema.json").read_text("utf-8")
)


@dataclass(frozen=True)
class PolicyPrinciple:
    """A rule of the constitution and the questions that make training data of it."""

    id: str
    text: str
    compare: str
    """The question whose answer says which of two replies is better."""
    critique: str | None
    revision: str | None
    weight: float
    categories: tuple[str, ...]
    """The categories whose requests it is trained on; none means harmless requests."""


@dataclass(frozen=True)
class PolicyCategory:
    """A kind of harm, and what is said to it by language; a text that it has none of is empty."""

    id: str
    openai: tuple[str, ...]
    input_action: str
    refusal: Mapping[str, str]
    safe_completion: Mapping[str, str]
    """With the resources for all countries in their place."""
    caution: Mapping[str, str]


@dataclass(frozen=True)
class Policy:
    """What training teaches."""

    name: str
    version: int
    sha256: str
    """The digest that the server has for the same file."""
    language_default: str
    principles: tuple[PolicyPrinciple, ...]
    categories: tuple[PolicyCategory, ...]

    @property
    def record(self) -> dict[str, str | int]:
        """Return what a checkpoint says of the policy it was trained by."""
        return {"name": self.name, "version": self.version, "sha256": self.sha256}


def policy_words(record: Mapping[str, str | int]) -> str:
    """Return a policy's record as a card says it."""
    return f"`{record['name']}`, version {record['version']}, SHA-256 `{record['sha256']}`"


def read_policy(file: Path | None = None) -> Policy:
    """Read and check a policy file; without one, the policy that ships.

    Raises ConfigurationError, as FILE:LINE: reason, for what the schema forbids and for contradictions in what training
    reads.
    """
    file = file or DEFAULT_POLICY
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read the policy {str(file)!r}: {error.strerror}") from error
    try:
        document = read_policy_yaml(content)
        _check_form(document)
        for place, reason in _contradictions(document.values):
            raise PolicyFault(reason, document.line_of(place))
    except PolicyFault as fault:
        raise ConfigurationError(f"{file}:{fault.line}: {fault.reason}") from fault
    return _policy(document.values)


def _check_form(document: PolicyYaml) -> None:
    errors = list(Draft202012Validator(SCHEMA).iter_errors(document.values))
    # A misspelt key is both unknown and missing: the first of the two says more.
    for error in sorted(map(_innermost, errors), key=lambda each: each.validator != "additionalProperties"):
        place = (*error.absolute_path, *_unknown_keys(error))
        raise PolicyFault(f"{'.'.join(map(str, place))}: {error.message:.300}", document.line_of(place))


def _innermost(error: ValidationError) -> ValidationError:
    """Return what is wrong inside a part that may also be absent, in place of "matches none of several forms"."""
    while error.context:
        error = max(
            error.context,
            key=lambda each: (
                len(each.absolute_path),
                each.validator == "additionalProperties",
                each.validator != "type",
            ),
        )
    return error


def _unknown_keys(error: ValidationError) -> list[str]:
    if error.validator != "additionalProperties":
        return []
    assert isinstance(error.instance, dict)
    assert isinstance(error.schema, dict)
    known, patterns = error.schema.get("properties", {}), error.schema.get("patternProperties", {})
    fitting = {key for pattern in patterns for key in error.instance if re.search(pattern, key)}
    return [key for key in error.instance if key not in known and key not in fitting][:1]


def _contradictions(values: dict[str, Any]) -> Iterator[tuple[Place, str]]:
    """Yield what no schema can say, in what training reads."""
    categories: list[dict[str, Any]] = values["categories"]
    for group in ("principles", "categories"):
        counts = Counter(entry["id"] for entry in values[group])
        for index, entry in reversed(list(enumerate(values[group]))):
            if counts[entry["id"]] > 1:
                yield (group, index, "id"), f"there are two {group} called {entry['id']!r}"
    names = {category["id"] for category in categories}
    for index, principle in enumerate(values["principles"]):
        if (principle.get("critique") is None) != (principle.get("revision") is None):
            yield ("principles", index), "critique and revision stand together: one of them is missing"
        for number, name in enumerate(principle.get("categories", ())):
            if name not in names:
                yield ("principles", index, "categories", number), f"there is no category {name!r}"
    yield from _contradictions_of_names(categories)
    for index, category in enumerate(categories):
        for place, reason in _contradictions_of_texts(category, values.get("language_default", "en")):
            yield ("categories", index, *place), reason


def _contradictions_of_names(categories: list[dict[str, Any]]) -> Iterator[tuple[Place, str]]:
    known = SCHEMA["$defs"]["Category"]["properties"]["openai"]["items"]["enum"]
    taken: set[str] = set()
    for index, category in enumerate(categories):
        for key in ("openai", "llama_guard"):
            for number, name in enumerate(category.get(key, ())):
                if name in taken:
                    yield ("categories", index, key, number), f"{name} belongs to another category already"
                taken.add(name)
    missing = [name for name in known if name not in taken]
    if missing:
        yield ("categories",), f"no category covers {', '.join(missing)} of OpenAI's names"


def _contradictions_of_texts(category: dict[str, Any], language: str) -> Iterator[tuple[Place, str]]:
    for stage in ("input", "output"):
        rule = category[stage]
        threshold, review = rule.get("threshold", "detector"), rule.get("review")
        if review is not None and threshold != "detector" and review >= threshold:
            yield (stage, "review"), f"review must be below the threshold, {threshold:g}"
        options = _TEXTS_OF_ACTIONS.get(rule["action"], ())
        if options and not any(category.get(option) for option in options):
            yield (stage, "action"), f"the action {rule['action']} needs a {options[0]}"
    is_self_harm = any(name.startswith("self-harm") for name in category.get("openai", ()))
    if is_self_harm and category["input"]["action"] == "refuse":
        yield ("input", "action"), "a person who may be in danger is never just refused: use safe_complete"
    for place, texts in _texts(category):
        if language not in texts:
            yield place, f"there is no text in the default language, {language}"
    completion = category.get("safe_completion")
    if completion and "default" not in completion["resources"]:
        yield ("safe_completion", "resources"), "the key default is missing"
    for spoken, text in completion["text"].items() if completion else ():
        if "{resources}" not in text:
            yield ("safe_completion", "text", spoken), "the text has no place for {resources}"


_TEXTS_OF_ACTIONS: Final = {
    "refuse": ("refusal",),
    "safe_complete": ("safe_completion",),
    "caution": ("caution",),
    "regenerate": ("refusal", "safe_completion"),
    "block": ("refusal", "safe_completion"),
}


def _texts(category: dict[str, Any]) -> Iterator[tuple[Place, dict[str, str]]]:
    for part, key in (("refusal", "text"), ("caution", "prefix"), ("safe_completion", "text")):
        if category.get(part):
            yield (part, key), category[part][key]
    resources = (category.get("safe_completion") or {}).get("resources", {})
    for region, texts in resources.items():
        yield ("safe_completion", "resources", region), texts


def _policy(values: dict[str, Any]) -> Policy:
    text = json.dumps(_whole(values), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return Policy(
        values["name"],
        int(values["version"]),
        hashlib.sha256(text.encode()).hexdigest(),
        values.get("language_default", "en"),
        tuple(_principle(each) for each in values["principles"]),
        tuple(_category(each) for each in values["categories"]),
    )


def _whole(value: Any) -> Any:
    """Write whole numbers without a fraction, so that 1 and 1.0 give one digest."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case list():
            return [_whole(item) for item in value]
        case dict():
            return {key: _whole(item) for key, item in value.items()}
        case _:
            return value


def _principle(values: dict[str, Any]) -> PolicyPrinciple:
    return PolicyPrinciple(
        values["id"],
        values["text"],
        values["compare"],
        values.get("critique"),
        values.get("revision"),
        float(values.get("weight", 1.0)),
        tuple(values.get("categories", ())),
    )


def _category(values: dict[str, Any]) -> PolicyCategory:
    completion: dict[str, str] = {}
    if parts := values.get("safe_completion"):
        resources = parts["resources"]["default"]
        completion = {
            language: text.replace("{resources}", resources[language])
            for language, text in parts["text"].items()
            if language in resources
        }
    return PolicyCategory(
        values["id"],
        tuple(values.get("openai", ())),
        values["input"]["action"],
        (values.get("refusal") or {}).get("text", {}),
        completion,
        (values.get("caution") or {}).get("prefix", {}),
    )
