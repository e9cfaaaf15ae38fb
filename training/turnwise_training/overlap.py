"""Scores answers by their overlap with the demonstration's reply: a stand-in for labelers where nobody ranked."""

import re
from collections.abc import Sequence

from turnwise_training.episodes import Episode
from turnwise_training.errors import DataError
from turnwise_training.prompts import REFERENCE


def overlap_rewards(episodes: Sequence[Episode]) -> list[float]:
    """Return ROUGE-L's F1 of each answer and its reference in tenths, less 0.5 where the answer never ended.

    Tenths, because a smaller difference says nothing about which answer is better: such answers shall tie.
    Raises DataError for a prompt without a reference. Source: Lin, "ROUGE", ACL 2004, section 3.
    """
    return [round(_overlap(episode), 1) - 0.5 * (not episode.sample.ended) for episode in episodes]


def _overlap(episode: Episode) -> float:
    reference = episode.prompt.columns.get(REFERENCE)
    if not isinstance(reference, str):
        raise DataError("overlap needs prompts made from conversations; this one has no reference reply")
    return rouge_l(episode.reply, reference)


def rouge_l(answer: str, reference: str) -> float:
    """Return the F1 of the longest common subsequence of words, between 0 and 1; two empty texts give 1."""
    a, b = _words(answer), _words(reference)
    if not a or not b:
        return float(a == b)
    row = [0] * (len(b) + 1)
    for word in a:
        diagonal = 0
        for place, other in enumerate(b, start=1):
            above = row[place]
            row[place] = diagonal + 1 if word == other else max(above, row[place - 1])
            diagonal = above
    return 2 * row[-1] / (len(a) + len(b))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text.lower())
