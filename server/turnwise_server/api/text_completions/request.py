"""The body of POST /v1/completions: prompts as text or token ids, and what they ask of the chat layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, cast

from pydantic import Discriminator, Field, Tag

from turnwise_server.api.sampling_request import SamplingRequest, Unsupported
from turnwise_server.api.validation import NoNul, validate
from turnwise_server.chat.turn import TurnRequest
from turnwise_server.errors import RequestError

MAX_CHOICES_IN_ALL = 64
"""Most replies to one request: its prompts times `n`."""
DEFAULT_MAX_TOKENS = 16
"""OpenAI's own, for this route."""

Prompt = str | list[int]


def _kind_of_prompt(value: object) -> str | None:
    if isinstance(value, str):
        return "text"
    if not isinstance(value, list):
        return None
    first = value[0] if value else ""
    return "ids" if isinstance(first, int) else "id_lists" if isinstance(first, list) else "texts"


PromptText = Annotated[str, NoNul]
TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(fail_fast=True)]
Several = Field(min_length=1, max_length=MAX_CHOICES_IN_ALL, fail_fast=True)
Prompts = Annotated[
    Annotated[PromptText, Tag("text")]
    | Annotated[list[PromptText], Several, Tag("texts")]
    | Annotated[TokenIds, Tag("ids")]
    | Annotated[list[TokenIds], Several, Tag("id_lists")],
    Discriminator(
        _kind_of_prompt,
        custom_error_type="string_or_array_of_strings, token ids or arrays of token ids",
        custom_error_message="Input should be a string or an array",
    ),
]


class CompletionRequest(SamplingRequest):
    """OpenAI's parameters of a text completion, and the sampling extensions of other servers."""

    prompt: Prompts
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    best_of: Annotated[int, Field(ge=1, le=20)] | None = None
    suffix: Unsupported = None

    @property
    def prompts(self) -> list[Prompt]:
        """The prompts, one by one."""
        is_one = isinstance(self.prompt, str) or isinstance(self.prompt[0], int)
        return cast("list[Prompt]", [self.prompt] if is_one else self.prompt)


def parse_completion_request(body: Mapping[str, object]) -> CompletionRequest:
    """Check everything about a request that can be checked without the model.

    Raises:
        RequestError: with OpenAI's message, code and param.
    """
    request = validate(CompletionRequest, body)
    request.check_stream_options()
    n = request.n or 1
    if len(request.prompts) * n > MAX_CHOICES_IN_ALL:
        raise RequestError(
            f"Invalid 'n': {n} choices of {len(request.prompts)} prompts are more than {MAX_CHOICES_IN_ALL} choices.",
            param="n",
            code="invalid_value",
        )
    if request.best_of not in (None, n):
        raise RequestError(
            f"Unsupported value: 'best_of' must equal 'n', which is {n}: this server shows every choice it makes.",
            param="best_of",
            code="unsupported_value",
        )
    if request.echo and request.logprobs is not None:
        raise RequestError(
            "Unsupported value: 'echo' does not go with 'logprobs': this server has no logprobs of prompts.",
            param="echo",
            code="unsupported_value",
        )
    return request


def completion_turn(request: CompletionRequest, *, id: str, tenant: str) -> TurnRequest:  # noqa: A002 - as on the wire
    """Return what the chat layer has to do, but for the prompts."""
    return replace(
        request.sampling_turn(id=id, tenant=tenant),
        max_tokens=request.max_tokens or DEFAULT_MAX_TOKENS,
        top_logprobs=request.logprobs,
    )
