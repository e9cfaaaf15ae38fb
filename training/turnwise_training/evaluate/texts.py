"""What can be counted in texts without a model: variety, repetition, lists. It takes tokens of any kind."""

import re
from collections.abc import Hashable, Sequence
from statistics import fmean

_WORD = re.compile(r"\w+|[^\w\s]")
_LIST_ITEM = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+\S", re.MULTILINE)


def words(text: str) -> list[str]:
    """Return a text's words and marks in lower case."""
    return _WORD.findall(text.lower())


def distinct(texts: Sequence[Sequence[Hashable]], n: int) -> float:
    """Return the share of different n-grams among all n-grams of the texts; 0 where there is none.

    It falls as more texts are read, so compare equal numbers of them. Source: Li et al. (arXiv 1510.03055), section 5.
    """
    grams = [gram for text in texts for gram in ngrams(text, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def repetition(text: Sequence[Hashable], n: int) -> float:
    """Return the share of a text's n-grams that stood in it before; 0 for a text shorter than n."""
    grams = ngrams(text, n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def ngrams(text: Sequence[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    """Return every n neighbours of a text, in order."""
    return list(zip(*(text[start:] for start in range(n)), strict=False))


def has_list(text: str) -> bool:
    """Tell whether a text holds a list: two lines or more that begin with a bullet or a number."""
    return len(_LIST_ITEM.findall(text)) > 1


def text_figures(texts: Sequence[str]) -> dict[str, float]:
    """Return means over texts of their words, repetition and lists, and how varied they are together."""
    parts = [words(text) for text in texts]
    return {
        "words_mean": fmean(map(len, parts)),
        "distinct_1": distinct(parts, 1),
        "distinct_2": distinct(parts, 2),
        "repetition_4": fmean(repetition(part, 4) for part in parts),
        "list_share": fmean(map(has_list, texts)),
    }
