"""What no schema can say of a policy: names that must exist, numbers that must fit, texts that must be there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from turnwise_server.chat.refusal.policy import Policy
from turnwise_server.chat.refusal.policy_categories import Category, SafeCompletion
from turnwise_server.chat.refusal.policy_stages import Detector
from turnwise_server.chat.refusal.policy_types import OPENAI_CATEGORIES
from turnwise_server.chat.refusal.yaml_lines import Path

_TAKEN: Final = {
    "leak": "a reply that repeats the system prompt",
    "policy": "a category that is not revealed",
    "none": "no category",
}
"""What stands in the place of a category in headers, audit and metrics, and for what."""

Fault: TypeAlias = tuple[Path, str]
"""Where in the policy, and what is wrong there."""

_KEYS_OF_KINDS: Final = {
    "hf_sequence_classification": ({"path"}, {"sha256", "labels"}),
    "hf_causal_guard": ({"path"}, {"sha256"}),
    "http": ({"url"}, {"model", "api_key_env"}),
    "phrases": ({"phrases"}, set[str]()),
}
"""Which keys each kind of detector needs, and which it may have."""


def check_policy(policy: Policy) -> Iterator[Fault]:
    """Yield all that is wrong with a policy whose form is right."""
    yield from _twice("principles", (principle.id for principle in policy.principles))
    yield from _twice("categories", (category.id for category in policy.categories))
    yield from _twice("detectors", (detector.id for detector in policy.detectors))
    yield from _check_names(policy)
    yield from _check_openai_names(policy)
    for index, principle in enumerate(policy.principles):
        if (principle.critique is None) != (principle.revision is None):
            yield ("principles", index), "critique and revision stand together: one of them is missing"
    for index, category in enumerate(policy.categories):
        if category.id in _TAKEN:
            yield (
                ("categories", index, "id"),
                f"{category.id} stands for {_TAKEN[category.id]}: take another name",
            )
        yield from _check_category(category, ("categories", index), policy.language_default)
    for index, detector in enumerate(policy.detectors):
        yield from _check_detector(detector, ("detectors", index))
    yield from _check_conditions(policy)
    yield from _check_sizes(policy)


def _twice(group: str, ids: Iterable[str]) -> Iterator[Fault]:
    seen: set[str] = set()
    for index, each in enumerate(ids):
        if each in seen:
            yield (group, index, "id"), f"there are two {group} called {each!r}"
        seen.add(each)


def _check_names(policy: Policy) -> Iterator[Fault]:
    """Hold every mention of a category or detector to those that there are."""
    categories = {category.id for category in policy.categories}
    detectors = {detector.id for detector in policy.detectors}
    mentions: list[tuple[Path, str]] = [
        (("principles", index, "categories", place), name)
        for index, principle in enumerate(policy.principles)
        for place, name in enumerate(principle.categories)
    ]
    mentions += [(("override", "never", place), name) for place, name in enumerate(policy.override.never)]
    for index, detector in enumerate(policy.detectors):
        mentions += [(("detectors", index, "phrases", name), name) for name in detector.phrases or ()]
        labels = detector.labels or {}
        mentions += [(("detectors", index, "labels", label), name) for label, name in labels.items()]
    for path, name in mentions:
        if name not in categories:
            yield path, f"there is no category {name!r}"
    for place, name in enumerate(policy.shadow):
        if name not in detectors:
            yield ("shadow", place), f"there is no detector {name!r}"
    if detectors <= {*policy.shadow}:
        yield ("shadow",), "no detector is left that decides anything: leave one of them out"


def _check_openai_names(policy: Policy) -> Iterator[Fault]:
    """Hold each of OpenAI's names to one category exactly, and each of Llama Guard's codes to one at most."""
    owners: Counter[str] = Counter()
    for index, category in enumerate(policy.categories):
        for key, names in (("openai", category.openai), ("llama_guard", category.llama_guard)):
            for place, name in enumerate(names):
                owners[name] += 1
                if owners[name] > 1:
                    yield ("categories", index, key, place), f"{name} belongs to another category already"
    missing = [name for name in OPENAI_CATEGORIES if not owners[name]]
    if missing:
        yield ("categories",), f"no category covers {', '.join(missing)} of OpenAI's names"


def _check_category(category: Category, path: Path, language: str) -> Iterator[Fault]:
    for key, rule in (("input", category.input), ("output", category.output)):
        if rule.review is not None and rule.threshold != "detector" and rule.review >= rule.threshold:
            yield (*path, key, "review"), f"review must be below the threshold, {rule.threshold:g}"
    if category.input.action == "refuse" and any(name.startswith("self-harm") for name in category.openai):
        yield (
            (*path, "input", "action"),
            "a person who may be in danger is never just refused: use safe_complete",
        )
    yield from _check_texts(category, path, language)


def _check_texts(category: Category, path: Path, language: str) -> Iterator[Fault]:
    """Hold a category to the texts that its actions say, in the default language."""
    has_refusal = category.refusal is not None or category.safe_completion is not None
    needs = {
        "refuse": (category.refusal is not None, "a refusal"),
        "safe_complete": (category.safe_completion is not None, "a safe_completion"),
        "caution": (category.caution is not None, "a caution"),
        "regenerate": (has_refusal, "a refusal"),
        "block": (has_refusal, "a refusal"),
    }
    for key, action in (("input", category.input.action), ("output", category.output.action)):
        is_there, need = needs.get(action, (True, ""))
        if not is_there:
            yield (*path, key, "action"), f"the action {action} needs {need}"
    texts: list[tuple[Path, dict[str, str]]] = []
    if category.refusal:
        texts.append((("refusal", "text"), category.refusal.text))
    if category.caution:
        texts.append((("caution", "prefix"), category.caution.prefix))
    if category.safe_completion:
        texts.append((("safe_completion", "text"), category.safe_completion.text))
        for region, text in category.safe_completion.resources.items():
            texts.append((("safe_completion", "resources", region), text))
        yield from _check_resources(category.safe_completion, (*path, "safe_completion"))
    for place, text in texts:
        if language not in text:
            yield (*path, *place), f"there is no text in the default language, {language}"


def _check_resources(completion: SafeCompletion, path: Path) -> Iterator[Fault]:
    if "default" not in completion.resources:
        yield (*path, "resources"), "the key default is missing"
    for language, text in completion.text.items():
        if "{resources}" not in text:
            yield (*path, "text", language), "the text has no place for {resources}"


def _check_detector(detector: Detector, path: Path) -> Iterator[Fault]:
    needed, possible = _KEYS_OF_KINDS[detector.kind]
    of_kinds = {key for pair in _KEYS_OF_KINDS.values() for keys in pair for key in keys}
    given = of_kinds & detector.model_dump(exclude_none=True).keys()
    for key in sorted(needed - given):
        yield path, f"a detector of kind {detector.kind} needs the key {key}"
    for key in sorted(given - needed - possible):
        yield (*path, key), f"a detector of kind {detector.kind} has no key {key}"


def _check_conditions(policy: Policy) -> Iterator[Fault]:
    """Hold `when` to detectors that are always asked, and to a policy that says what unsure means."""
    always = {detector.id for detector in policy.detectors if detector.when is None}
    has_review = any(
        rule.review is not None
        for category in policy.categories
        for rule in (category.input, category.output)
    )
    for index, detector in enumerate(policy.detectors):
        if detector.when is None:
            continue
        path = ("detectors", index, "when")
        if detector.when.unsure not in always:
            yield (*path, "unsure"), f"there is no detector {detector.when.unsure!r} that is always asked"
        elif not has_review:
            yield path, "the detector would never be asked: no category has a review score"


def _check_sizes(policy: Policy) -> Iterator[Fault]:
    if policy.input.overlap >= policy.input.window_chars:
        yield ("input", "overlap"), "the overlap must be smaller than the window"
    output = policy.output
    if output.context_chars < output.stride_chars + output.hold_chars:
        least = output.stride_chars + output.hold_chars
        yield (
            ("output", "context_chars"),
            f"must be at least stride_chars and hold_chars together, {least}",
        )
    for index, detector in enumerate(policy.detectors):
        for name, phrases in (detector.phrases or {}).items() if "output" in detector.stage else ():
            for place, phrase in enumerate(phrases):
                if len(phrase) > output.hold_chars:
                    yield (
                        ("detectors", index, "phrases", name, place),
                        f"longer than hold_chars, {output.hold_chars}",
                    )
    if policy.audit.content == "full" and policy.audit.retention_days is None:
        yield ("audit", "content"), "whole texts are kept for a time only: give retention_days"
