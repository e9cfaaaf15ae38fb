"""`turnwise-train evaluate safety`: what a running server, its model alone and a detector refuse of labelled files."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from turnwise_training.errors import ConfigurationError, DataError, RunError
from turnwise_training.safety.compare import compare, require_answers
from turnwise_training.safety.comparison_table import comparison_table
from turnwise_training.safety.corpus import capped
from turnwise_training.safety.detector import Detector, load_detector
from turnwise_training.safety.outcomes import Outcome
from turnwise_training.safety.rows import SafetyRow, read_labelled

SHIPPED: Final = Path("models/safety")
SEED: Final = 1

_log = logging.getLogger(__name__)
_Judge = Callable[[Sequence[str]], list[Outcome]]


class Measured(Protocol):
    """A running server."""

    url: str

    def replies(self, texts: Sequence[str]) -> list[Outcome]:
        """Return what becomes of each text as a chat."""
        ...

    def moderations(self, texts: Sequence[str]) -> list[Outcome]:
        """Return what its detectors say of each text."""
        ...


def evaluate_files(
    files: Sequence[Path],
    *,
    detector: Path | None = None,
    server: Measured | None = None,
    alone: Measured | None = None,
    each: int | None = None,
    output: Path | None = None,
) -> str:
    """Return the tables of the rows of `files`, and write the figures to `output` as JSON; neither holds a text.

    Side by side: `server` with its refusal layer, `alone` without one, and the detector alone: that of a directory if
    one is given, else the server's `/v1/moderations`, else the one that ships. Of each source and class at most `each`
    rows are judged.

    Raises:
        DataError: the files hold nothing to judge.
        ConfigurationError: the folder of `output` is not there; nobody was asked yet.
        RunError: the detector is not there, too much failed, or a server has a layer where it must have none, or the
            other way round.
    """
    rows = [row for path in files for row in read_labelled(path)]
    if each is not None:
        rows = capped(rows, each, SEED)
    if not rows:
        raise DataError(f"{', '.join(map(str, files))}: no safe or unsafe rows to judge")
    if output is not None and not output.parent.is_dir():
        raise ConfigurationError(f"{output}: there is no directory {output.parent}; make it first")
    judges = list(_judges(detector, server, alone))
    columns = {name: _judged(name, judge, rows) for name, judge in judges}
    require_answers(columns)
    figures = compare(rows, columns)
    if output is not None:
        output.write_text(json.dumps(figures, indent=2) + "\n")
    return comparison_table(figures)


def _judges(
    detector: Path | None, server: Measured | None, alone: Measured | None
) -> Iterator[tuple[str, _Judge]]:
    if server is not None:
        yield "layer", lambda texts: _must_not_say("off", server, texts)
    if alone is not None:
        yield "model alone", lambda texts: _must_not_say("on", alone, texts)
    if detector is not None or server is None:
        loaded = load_detector(detector or SHIPPED)
        yield "detector", lambda texts: _flagged(loaded, texts)
    else:
        yield "detector", server.moderations


def _judged(name: str, judge: _Judge, rows: Sequence[SafetyRow]) -> list[Outcome]:
    began = time.monotonic()
    outcomes = judge([row.text for row in rows])
    _log.info("%s: %d texts in %.0f s", name, len(rows), time.monotonic() - began)
    return outcomes


def _must_not_say(layer: str, server: Measured, texts: Sequence[str]) -> list[Outcome]:
    outcomes = server.replies(texts)
    if any(outcome.layer == layer for outcome in outcomes):
        remedy = "start it with a policy" if layer == "off" else "start it with --unsafe-no-classifier"
        raise RunError(f"the refusal layer of {server.url} is {layer}; {remedy}, or name another server")
    return outcomes


def _flagged(detector: Detector, texts: Sequence[str]) -> list[Outcome]:
    scores = detector.scores(texts)
    flagged = detector.calibration.flagged(scores)
    return [
        Outcome(refused=bool(flag), score=float(highest))
        for flag, highest in zip(flagged, scores.max(axis=1), strict=True)
    ]
