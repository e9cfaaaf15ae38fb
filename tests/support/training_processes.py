"""Training processes that start at once: forked from a server that imported the training package before."""

import multiprocessing
import os
import socket
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from turnwise_training.episodes import Episode

Stage = Literal["pretrain", "sft", "reward", "ppo"]

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [f"turnwise_training.{stage}" for stage in ("pretrain", "sft", "reward", "ppo_stage")] + [__name__]
)


def run_stage(stage: Stage, recipe: Path, *overrides: str, force: bool = True) -> None:
    """Run a stage in this process."""
    from turnwise_training import config, ppo_stage, pretrain, reward, sft
    from turnwise_training.recipe import load_config

    if stage == "pretrain":
        pretrain.run_pretrain(load_config(config.PretrainConfig, recipe, overrides), force=force)
    elif stage == "sft":
        sft.run_sft(load_config(config.SFTConfig, recipe, overrides), force=force)
    elif stage == "reward":
        reward.run_reward(load_config(config.RewardConfig, recipe, overrides), force=force)
    else:
        ppo_stage.run_ppo(load_config(config.PPOConfig, recipe, overrides), force=force)


def count_spaces(episodes: "Sequence[Episode]") -> list[float]:
    """Reward answers by their number of spaces."""
    return [float(episode.reply.count(" ")) for episode in episodes]


def _begin(stage: Stage, recipe: Path, overrides: Sequence[str], environment: Mapping[str, str]) -> None:
    import torch

    os.environ.update(environment)
    torch.set_num_threads(1)
    run_stage(stage, recipe, *overrides)


def start(
    stage: Stage, recipe: Path, overrides: Sequence[str], environment: Mapping[str, str]
) -> BaseProcess:
    """Start a stage in a process of its own; an error is written to stderr and ends it with code 1."""
    process = FORKS.Process(target=_begin, args=(stage, recipe, tuple(overrides), dict(environment)))
    process.start()
    return process


def run_together(
    stage: Stage, recipe: Path, *overrides: str, environment: Mapping[str, str] | None = None, world: int = 2
) -> list[int | None]:
    """Run a stage in `world` processes that know of each other; return their exit codes, None where one hangs."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        **(environment or {}),
    }
    processes = [
        start(stage, recipe, overrides, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(world)
    ]
    for process in processes:
        process.join(timeout=60)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes
