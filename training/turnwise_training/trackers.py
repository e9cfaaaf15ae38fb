"""Sends a run's figures to TensorBoard, Weights & Biases or trackio as well; each is imported where it is used."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from turnwise_training.config import TrackerName
from turnwise_training.errors import ConfigurationError


class Tracker(Protocol):
    """A place that draws curves of figures."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Take in the figures of a step."""


def open_trackers(names: Sequence[TrackerName], folder: Path, config: object) -> list[Tracker]:
    """Return the trackers of a run whose folder is `folder`.

    Raises ConfigurationError where a package is missing.
    """
    return [TRACKERS[name](folder, config) for name in names]


def send(trackers: Sequence[Tracker], line: Mapping[str, object]) -> None:
    """Give the numbers of a log line to every tracker."""
    if trackers:
        step = line["step"]
        assert isinstance(step, int)
        numbers = {
            name: float(value)
            for name, value in line.items()
            if isinstance(value, int | float) and name != "step"
        }
        for tracker in trackers:
            tracker.log(step, numbers)


class TensorBoard:
    """Event files in the folder `tensorboard` of the run."""

    def __init__(self, folder: Path, config: object) -> None:
        _require("tensorboard", "tensorboard")
        module = _require("torch.utils.tensorboard", "tensorboard")
        self._writer: Any = module.SummaryWriter(str(folder / "tensorboard"))
        self._writer.add_text("config", repr(config))

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Write each figure as a scalar."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()


class Dashboard:
    """Weights & Biases, or trackio, which has the same calls; a resumed run goes on under its name."""

    def __init__(self, package: str, folder: Path, config: object, **options: object) -> None:
        module = _require(package, package)
        self._run: Any = module.init(project="turnwise", name=folder.name, config=config, **options)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Send the figures of a step."""
        self._run.log(dict(figures), step=step)


def _require(module: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigurationError(
            f"`track` names {package}, which is not installed ({error}): pip install {package}"
        ) from error


def _wandb(folder: Path, config: object) -> Tracker:
    return Dashboard("wandb", folder, config, dir=str(folder), id=folder.name, resume="allow")


def _trackio(folder: Path, config: object) -> Tracker:
    return Dashboard("trackio", folder, config, resume="allow")


TRACKERS: dict[TrackerName, Callable[[Path, object], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": _wandb,
    "trackio": _trackio,
}
