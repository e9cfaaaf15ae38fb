"""The requests that rules are taught on: harmful ones with their category of the policy, and harmless ones."""

import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from turnwise_training.config import ConstitutionConfig
from turnwise_training.constitution.harmless import LICENCE, SOURCE, advice, answered_questions
from turnwise_training.data import Prompt, only, read_rows, source_path
from turnwise_training.errors import ConfigurationError
from turnwise_training.policy import Policy, PolicyCategory
from turnwise_training.safety.contrasts import written_rows
from turnwise_training.safety.near_duplicates import near_duplicates
from turnwise_training.safety.rows import SafetyRow, permitted, read_labelled

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What a user asks."""

    text: str
    source: str
    licence: str
    category: PolicyCategory | None = None
    """None for a harmless request."""
    answer: str = ""
    """What it is truthfully answered; empty where nobody wrote it, and where it is not answered."""


def harmful_requests(config: ConstitutionConfig, policy: Policy) -> list[Request]:
    """Return the written harmful requests and those of the recipe's files that weights that ship may learn from.

    Of a file, rows are left out whose category nobody wrote down or no category of the policy covers.
    """
    written = written_rows(frames_each=config.frames_each, seed=config.seed)
    rows = [*written, *_from_files(config, config.harmful, unsafe=True)]
    requests = [
        Request(row.text, row.source, row.licence, category)
        for row in rows
        if row.unsafe and (category := category_of(row, policy)) is not None
    ]
    return apart(requests, config.held_out)


def harmless_requests(config: ConstitutionConfig) -> list[Request]:
    """Return the harmless questions that ship, with answers, and the prompts of the recipe's files, without."""
    written = [Request(asked, SOURCE, LICENCE, answer=answer) for asked, answer in answered_questions()]
    rows = _from_files(config, config.harmless, unsafe=False)
    return apart([*written, *(Request(row.text, row.source, row.licence) for row in rows)], config.held_out)


def advice_requests(policy: Policy) -> list[Request]:
    """Return the written questions of the categories that are answered with a caution, with answers."""
    return [
        Request(asked, SOURCE, LICENCE, category, answer)
        for category in policy.categories
        if category.input_action == "caution"
        for asked, answer in advice(category.id)
    ]


def all_requests(config: ConstitutionConfig, policy: Policy) -> list[Request]:
    """Return the harmful requests, the harmless ones, and those that ask for advice."""
    return [*harmful_requests(config, policy), *harmless_requests(config), *advice_requests(policy)]


def category_of(row: SafetyRow, policy: Policy) -> PolicyCategory | None:
    """Return the category that covers most labels of a row, of several the gravest; None if none covers any."""
    labels = row.labels or frozenset()
    best = max(policy.categories, key=lambda each: len(labels.intersection(each.openai)), default=None)
    return best if best is not None and labels.intersection(best.openai) else None


def apart(requests: Sequence[Request], held_out: Iterable[Path]) -> list[Request]:
    """Return the requests that nearly repeat no prompt of the files in `held_out`, which evaluation asks."""
    prompts = [row for path in held_out for row in only(read_rows(path), Prompt)]
    repeated = near_duplicates(
        [request.text for request in requests], [row.prompt[-1]["content"] for row in prompts]
    )
    if repeated:
        _log.info("left out %d requests that nearly repeat one of evaluation", len(repeated))
    return [request for place, request in enumerate(requests) if place not in repeated]


def _from_files(config: ConstitutionConfig, files: Mapping[str, int], *, unsafe: bool) -> list[SafetyRow]:
    """Return the rows of one side, as many of each file at random as the recipe says.

    Raises DataError for what is no labelled row, and ConfigurationError for fewer rows than none.
    """
    draw, chosen = random.Random(config.seed), list[SafetyRow]()
    for name, most in files.items():
        if most < 0:
            raise ConfigurationError(f"the recipe takes {most} rows of {name!r}; take 0 or more")
        path = source_path(config.data, name)
        assert path is not None, "no program writes labelled rows"
        rows = permitted(read_labelled(path), licences="permissive", excluded=config.excluded)
        usable = [row for row in rows if row.unsafe == unsafe and (row.labels or not unsafe)]
        chosen += draw.sample(usable, min(most, len(usable)))
    return chosen
