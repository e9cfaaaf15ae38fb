"""The parameter `moderation` of chat completions: scores of what was read and written, and what is flagged refused."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from turnwise_server.api.errors import ApiError, moderation_unavailable, no_classifier
from turnwise_server.api.moderations.model_names import check_model, model_name
from turnwise_server.api.moderations.results import result_of, unscored
from turnwise_server.api.moderations.wire import (
    ModerationError,
    ModerationResults,
    ReplyModeration,
    ReplyModerationResult,
)
from turnwise_server.api.refusal.guarding import GuardedReply
from turnwise_server.api.sampling_request import ModelName
from turnwise_server.api.validation import RequestModel
from turnwise_server.chat.refusal.policy_types import Stage
from turnwise_server.moderation.layer import RefusalLayer
from turnwise_server.moderation.readings import Reading


class StageModeration(RequestModel):
    """What happens to texts that are flagged: nothing more than the policy orders, or a refusal."""

    mode: Literal["score", "block"]


class ModerationPolicy(RequestModel):
    """What happens to each of the two."""

    input: StageModeration | None = None
    output: StageModeration | None = None


class RequestedModeration(RequestModel):
    """By what to judge a request and its reply, and what for. Both are scored, whatever is left out."""

    model: ModelName
    policy: ModerationPolicy | None = None

    @property
    def blocks(self) -> frozenset[Stage]:
        """Where everything that is flagged is to be refused."""
        policy = self.policy or ModerationPolicy()
        modes: dict[Stage, StageModeration | None] = {"input": policy.input, "output": policy.output}
        return frozenset(stage for stage, asked in modes.items() if asked and asked.mode == "block")


def check_moderation(asked: RequestedModeration | None, layer: RefusalLayer | None) -> None:
    """Refuse what cannot be judged, before anything is generated.

    Raises:
        ApiError: 400 no_classifier; 404 model_not_found.
    """
    if asked is None:
        return
    if layer is None:
        raise ApiError(no_classifier("moderation"))
    try:
        check_model(asked.model, layer)
    except ApiError as error:
        raise ApiError(replace(error.reply, param="moderation.model")) from error


def moderation_of(guarded: GuardedReply, *, n: int) -> ReplyModeration:
    """Return what the detectors said of a request and its reply of `n` choices, which has ended.

    Where the request was refused there is no reply, and so no result of one.
    """
    guard = guarded.guard
    written = 0 if guarded.turn.input_verdict.stops else n
    return ReplyModeration(
        input=_results(guard.layer, [] if guard.input_reading is None else [guard.input_reading]),
        output=_results(guard.layer, [guard.output_readings.get(i, Reading()) for i in range(written)]),
    )


def _results(layer: RefusalLayer, readings: Iterable[Reading]) -> ModerationResults | ModerationError:
    name, results = model_name(layer), []
    for reading in readings:
        if any(unscored(layer.policy, reading)):
            error = moderation_unavailable()
            return ModerationError(code="moderation_unavailable", message=error.message)
        results.append(ReplyModerationResult(model=name, **result_of(reading).model_dump()))
    return ModerationResults(model=name, results=results)
