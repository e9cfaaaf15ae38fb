"""Chooses which epoch's weights fine-tuning keeps: the last, that of least held-out loss or that of the best reward."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

from torch import Tensor, nn
from transformers import PreTrainedModel

from turnwise_training.chat import Encoder
from turnwise_training.config import RewardTerm, SFTConfig
from turnwise_training.data import Row
from turnwise_training.errors import ConfigurationError
from turnwise_training.evaluate import held_out_losses
from turnwise_training.parallel import Parallel
from turnwise_training.prompts import read_prompts
from turnwise_training.rewards import build_reward
from turnwise_training.sampling import Sampler

PROMPTS_PER_SOURCE = 16
"""Held-out prompts of each source that `select: reward` answers, at most."""


class Selection(Protocol):
    """Says which weights are exported; its state is part of the run's."""

    @property
    def facts(self) -> Mapping[str, object]:
        """Return what joins training.json."""

    def after_step(self, step: int) -> dict[str, object]:
        """Look at the weights after `step` steps; return what joins the log line."""

    def restore(self) -> None:
        """Give the trained weights the chosen values."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class LastEpoch:
    """Keeps the weights as training leaves them."""

    facts: Mapping[str, object] = {}

    def after_step(self, step: int) -> dict[str, object]:  # noqa: ARG002
        """Look at nothing."""
        return {}

    def restore(self) -> None:
        """Change nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: there is no state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing."""


class BestEpoch:
    """Judges the weights after each epoch and holds the best of them."""

    def __init__(
        self,
        trained: nn.Module,
        judge: Callable[[], float],
        *,
        by: Literal["loss", "reward"],
        steps_per_epoch: int,
    ) -> None:
        self._trained = trained
        self._judge = judge
        self._by = by
        self._steps_per_epoch = steps_per_epoch
        self._figures: list[float] = []
        self._weights = _copy(trained)

    def after_step(self, step: int) -> dict[str, object]:
        """Judge the weights if `step` ends an epoch; return what joins the log line."""
        if step % self._steps_per_epoch:
            return {}
        self._figures.append(self._judge())
        if self.kept_epoch == len(self._figures):
            self._weights = _copy(self._trained)
        return {f"held_out_{self._by}": self._figures[-1]}

    @property
    def kept_epoch(self) -> int:
        """The best epoch so far, counted from 1; the earliest of several equal ones."""
        best = min if self._by == "loss" else max
        return 1 + self._figures.index(best(self._figures))

    @property
    def facts(self) -> Mapping[str, object]:
        """Return what joins training.json: the figure of each epoch and the one that is kept."""
        return {"selection": {"by": self._by, "epochs": self._figures, "kept_epoch": self.kept_epoch}}

    def restore(self) -> None:
        """Give the trained weights the values of the best epoch."""
        self._trained.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """Return the figures so far and the best weights."""
        return {"figures": self._figures, "weights": self._weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of `state_dict`."""
        self._figures, self._weights = list(state["figures"]), state["weights"]


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in module.state_dict().items()}


def build_selection(
    config: SFTConfig,
    model: PreTrainedModel,
    trained: nn.Module,
    held_out: Mapping[str, list[Row]],
    encoder: Encoder,
    parallel: Parallel,
    *,
    steps_per_epoch: int,
) -> Selection:
    """Return the choice a recipe asks for.

    `trained` are the weights of `model` that training changes. Raises ConfigurationError where the judge of
    `select: reward` is missing or has no prompt.
    """
    if config.select == "last":
        return LastEpoch()
    if config.select == "loss":
        judge = _loss_judge(config, model, held_out, encoder)
    else:
        judge = _reward_judge(config, model, encoder, parallel)

    def in_evaluation() -> float:
        try:
            return judge()
        finally:
            model.train()

    return BestEpoch(trained, in_evaluation, by=config.select, steps_per_epoch=steps_per_epoch)


def _loss_judge(
    config: SFTConfig, model: PreTrainedModel, held_out: Mapping[str, list[Row]], encoder: Encoder
) -> Callable[[], float]:
    def mean_loss() -> float:
        """Return the mean over the held-out tokens of all sources, in nats."""
        losses = held_out_losses(model, encoder, held_out, tokens=config.eval_tokens).values()
        if not losses:
            raise ConfigurationError("select: loss needs held-out rows, and none of the sources has one")
        return sum(each["nats_per_token"] * each["tokens"] for each in losses) / sum(
            each["tokens"] for each in losses
        )

    return mean_loss


def _reward_judge(
    config: SFTConfig, model: PreTrainedModel, encoder: Encoder, parallel: Parallel
) -> Callable[[], float]:
    if config.reward_model is None:
        raise ConfigurationError("select: reward needs reward_model, the directory of the judge")
    reward = build_reward((RewardTerm("model", str(config.reward_model)),), encoder, parallel.device)
    prompts = read_prompts(
        {name: min(count, PROMPTS_PER_SOURCE) for name, count in config.rows.items()},
        encoder,
        data=config.data,
        max_tokens=config.sampling.max_prompt_tokens,
        seed=config.seed,
        held_out=True,
    )
    sampler = Sampler(model, encoder, config.sampling, parallel)

    def mean_reward() -> float:
        """Return the mean score of one sampled reply a prompt; the random numbers are the same at every epoch."""
        sampler.refresh()
        episodes = sampler.answer([prompt.prompt for prompt in prompts], seed=config.seed)
        scores: list[float] = parallel.spread(episodes, reward.score)
        return sum(scores) / len(scores)

    return mean_reward
