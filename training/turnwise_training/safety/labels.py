"""The thirteen categories by OpenAI's names, and what the categories of public data sets mean in them."""

from typing import Final

LABELS: Final = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)

_REQUESTS: Final[dict[str, tuple[str, ...]]] = {
    "cyber": ("illicit",),
    "fraud": ("illicit",),
    "illicit": ("illicit",),
    "privacy": ("illicit",),
    "weapons": ("illicit", "illicit/violent"),
    "extremism": ("illicit", "illicit/violent"),
    "violence": ("illicit", "illicit/violent", "violence"),
    "harassment": ("harassment",),
    "hate": ("hate",),
    "self_harm": ("self-harm", "self-harm/instructions"),
    "sexual": ("sexual",),
    "sexual_minors": ("sexual", "sexual/minors"),
}
_REMARKS: Final[dict[str, tuple[str, ...]]] = {
    "toxic": ("harassment",),
    "severe_toxic": ("harassment",),
    "insult": ("harassment",),
    "obscene": ("harassment",),
    "threat": ("harassment", "harassment/threatening", "violence"),
    "identity_hate": ("hate",),
}
_MEANINGS: Final = {label: (label,) for label in LABELS} | _REQUESTS | _REMARKS


def labels_of(category: str) -> frozenset[str] | None:
    """Return the labels that a data set's category stands for, or None if it stands for none of them for sure.

    A category may be a label itself, and may join several with `+`, as in `toxic+threat`.
    """
    parts = [_MEANINGS.get(part) for part in category.split("+")]
    known = [part for part in parts if part is not None]
    return frozenset(label for part in known for label in part) if len(known) == len(parts) else None
