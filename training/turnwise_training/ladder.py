"""Chains stages by one recipe, so that a model climbs the ladder, rounds of sample, rank, reward and PPO included.

A stage that has finished is passed over and one that was cut goes on, so that the same command again resumes.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from turnwise_training.config import LadderConfig, Rung, StageConfig
from turnwise_training.errors import ConfigurationError
from turnwise_training.stages import STAGES, Stage


@dataclass(frozen=True)
class Planned:
    """A stage with its settings, and the round it belongs to; round 0 comes before all."""

    stage: Stage
    config: StageConfig
    round: int


def plan(ladder: LadderConfig, folder: Path) -> Iterator[Planned]:
    """Yield every stage in order; recipes are found from `folder`, the ladder file's own.

    In the values of `set`, {round} stands for the round's number and {previous} for the one before.
    Raises ConfigurationError naming the rung whose recipe or settings cannot be used.
    """
    for rung in ladder.before:
        yield _plan(rung, folder, 0)
    for number in range(1, ladder.rounds + 1):
        for rung in ladder.each:
            yield _plan(rung, folder, number)


def _plan(rung: Rung, folder: Path, number: int) -> Planned:
    if rung.stage not in STAGES:
        raise ConfigurationError(f"no stage {rung.stage!r}; there are {', '.join(STAGES)}")
    overrides = [
        f"{key}={value.replace('{round}', str(number)).replace('{previous}', str(number - 1))}"
        for key, value in rung.set.items()
    ]
    stage = STAGES[rung.stage]
    return Planned(stage, stage.load(folder / rung.recipe, overrides), number)


def climb(ladder: LadderConfig, folder: Path) -> None:
    """Run every stage that has not finished, in order; settings of all are checked before the first one runs."""
    for planned in list(plan(ladder, folder)):
        where = f"{planned.stage.name} -> {planned.config.output}"
        if planned.stage.is_finished(planned.config):
            sys.stderr.write(f"{where}: finished before\n")
            continue
        sys.stderr.write(f"{where}\n")
        planned.stage.run(planned.config, force=False)
