"""Training processes that start at once: forked from a server that imported the training package before."""

import multiprocessing
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from turnwise_training.stages import STAGES

if TYPE_CHECKING:
    from turnwise_training.episodes import Episode

FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
"""What `accelerate launch --use_fsdp --fsdp_version 2` puts into the environment."""

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([__name__, *(stage.module for stage in STAGES.values())])


def run_stage(stage: str, recipe: Path, *overrides: str) -> None:
    """Run a stage in this process."""
    STAGES[stage].run(STAGES[stage].load(recipe, overrides), force=True)


def count_spaces(episodes: "Sequence[Episode]") -> list[float]:
    """Reward answers by their number of spaces."""
    return [float(episode.reply.count(" ")) for episode in episodes]


def start(
    work: Callable[..., None], *arguments: object, environment: Mapping[str, str] | None = None
) -> BaseProcess:
    """Call a module's function in a process of its own; an error is written to stderr and ends it with code 1."""
    process = _FORKS.Process(target=_call, args=(work, arguments, dict(environment or {})))
    process.start()
    return process


def _call(work: Callable[..., None], arguments: Sequence[object], environment: Mapping[str, str]) -> None:
    import torch

    os.environ.update(environment, OMP_NUM_THREADS="1")
    torch.set_num_threads(1)
    work(*arguments)


def together(
    work: Callable[..., None],
    *arguments: object,
    environment: Mapping[str, str] | None = None,
    world: int = 2,
) -> list[int | None]:
    """Call a function in `world` processes that know of each other; return their exit codes, None if one hangs."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    launched = {
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        **(environment or {}),
    }
    processes = [
        start(work, *arguments, environment={**launched, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(world)
    ]
    for process in processes:
        process.join(timeout=240)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes
