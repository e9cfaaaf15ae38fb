"""Chooses the words in which a category is refused, by the client's `accept-language` header. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from turnwise_server.chat.refusal.policy_categories import Category

LEAK: Final = "leak"
"""What stands for a category where a reply gives the system text away."""

LEAK_TEXT: Final = (
    "I can't share the instructions that I was given. Is there something else that I can help with?"
)

FLAGGED_TEXT: Final = "I can't help with that. Is there something else that I can help with?"
"""What is said where a request wants refused what the policy has no words for, because it lets it pass."""

MAX_RANGES: Final = 20
"""Languages of a header that are looked at; a browser names fewer than ten."""


def stop_text(category: Category, accept_language: str, default: str) -> str:
    """Return what is said where a category is refused, completed safely or cut: help before refusal.

    Args:
        category: one with a text of its own, to which `policy_checks` holds those whose action says it, or without.
        accept_language: the header, or "".
        default: the policy's default language, which every text exists in.
    """
    wanted = _ranges(accept_language)
    completion = category.safe_completion
    if completion is None:
        return _in_language(category.refusal.text, wanted, default) if category.refusal else FLAGGED_TEXT
    countries = [tag.rsplit("-", 1)[-1].upper() for tag in wanted if "-" in tag]
    country = next((each for each in countries if each in completion.resources), "default")
    resources = _in_language(completion.resources[country], wanted, default)
    return _in_language(completion.text, wanted, default).replace("{resources}", resources)


def stop_texts(category: Category) -> Iterator[str]:
    """Yield all that may be said where a category is refused, completed safely or cut: every language and country."""
    if category.refusal is not None:
        yield from category.refusal.text.values()
    if category.safe_completion is not None:
        resources = [text for each in category.safe_completion.resources.values() for text in each.values()]
        for text in category.safe_completion.text.values():
            yield from (text.replace("{resources}", each) for each in resources)


def caution_text(category: Category, accept_language: str, default: str) -> str:
    """Return what an answer of the category begins with; "" if it has no caution."""
    if category.caution is None:
        return ""
    return _in_language(category.caution.prefix, _ranges(accept_language), default)


def _in_language(texts: Mapping[str, str], wanted: Sequence[str], default: str) -> str:
    """Return the text in the first wanted language there is, in a dialect or in any form of it, else the default."""
    by_tag = {tag.casefold(): text for tag, text in texts.items()}
    for tag in wanted:
        if tag in by_tag:
            return by_tag[tag]
        if (language := tag.split("-", 1)[0]) in by_tag:
            return by_tag[language]
    return texts[default]


def _ranges(header: str) -> list[str]:
    """Return the languages of an `accept-language` header (RFC 9110, section 12.5.4), the most wanted first."""
    weighted = []
    for part in header.split(",", MAX_RANGES)[:MAX_RANGES]:
        tag, _, parameter = part.partition(";")
        weighted.append((_weight(parameter), tag.strip().casefold()))
    return [tag for weight, tag in sorted(weighted, key=lambda each: -each[0]) if weight > 0 and tag]


def _weight(parameter: str) -> float:
    """Return the weight that `q=0.7` says, 0..1; 0 for what cannot be read, so that it is not wanted."""
    name, _, value = parameter.strip().partition("=")
    if not name:
        return 1.0
    whole, _, fraction = value.strip().partition(".")
    is_weight = (
        name.strip() == "q" and whole in {"0", "1"} and len(fraction) <= 3 and (fraction or "0").isdecimal()
    )
    return min(1.0, float(f"{whole}.{fraction or '0'}")) if is_weight else 0.0
