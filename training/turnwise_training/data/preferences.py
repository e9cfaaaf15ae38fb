"""Makes rankings of what rows say about preferences, where a stage asks for them."""

from collections import Counter
from collections.abc import Iterable, Iterator

from turnwise_training.data.rows import Completion, Ranking, Row, Vote, only


def as_rankings(rows: Iterable[Row]) -> list[Ranking]:
    """Return the rankings, then one ranking for each prompt of which one answer was liked and another disliked.

    An answer several people voted on counts as most of them did, and not at all where they are split. Answers of one
    label tie.
    Raises DataError for a row that is neither a ranking nor a vote.
    """
    rows = list(rows)
    votes = [row for row in rows if isinstance(row, Vote)]
    rankings = only((row for row in rows if not isinstance(row, Vote)), Ranking)
    return [*rankings, *_rank_votes(votes)]


def _rank_votes(votes: Iterable[Vote]) -> Iterator[Ranking]:
    by_prompt: dict[tuple[tuple[str, str], ...], list[Vote]] = {}
    for vote in votes:
        key = tuple((message["role"], message["content"]) for message in vote.prompt)
        by_prompt.setdefault(key, []).append(vote)
    for same in by_prompt.values():
        balance: Counter[str] = Counter()
        for vote in same:
            balance[vote.completion] += 1 if vote.label else -1
        ranked = tuple(Completion(each, 1 if count > 0 else 2) for each, count in balance.items() if count)
        if len({completion.rank for completion in ranked}) == 2:
            yield Ranking(same[0].prompt, ranked, user=same[0].user, where=same[0].where)
