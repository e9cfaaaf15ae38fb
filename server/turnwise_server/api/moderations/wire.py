"""Results of moderation as OpenAI sends them: of a text by itself, and of what a chat completion read and wrote."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from turnwise_server.chat.refusal.policy_types import OpenAICategory


class ModerationResult(BaseModel):
    """What is said of one text. Every category is there, with a score of 0 where no detector knows it."""

    flagged: bool
    categories: dict[OpenAICategory, bool]
    category_scores: dict[OpenAICategory, float]
    category_applied_input_types: dict[OpenAICategory, list[Literal["text"]]]
    """Empty for a category that no detector knows."""


class Moderation(BaseModel):
    """The answer of /v1/moderations: a result for each text."""

    id: str
    model: str
    results: list[ModerationResult]


class ReplyModerationResult(ModerationResult):
    """What is said of a request, or of one choice of its reply."""

    type: Literal["moderation_result"] = "moderation_result"
    model: str


class ModerationResults(BaseModel):
    """What is said of a request, or of all choices of its reply."""

    type: Literal["moderation_results"] = "moderation_results"
    model: str
    results: list[ReplyModerationResult]


class ModerationError(BaseModel):
    """Nothing can be said of it."""

    type: Literal["error"] = "error"
    code: str
    message: str


class ReplyModeration(BaseModel):
    """What is said of a request and its reply."""

    input: ModerationResults | ModerationError
    output: ModerationResults | ModerationError
