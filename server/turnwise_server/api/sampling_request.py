"""What every request for a completion shares: how tokens are chosen, how long the reply is, and how it is sent."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated

from pydantic import AfterValidator, Field, Tag

from turnwise_server.api.validation import Decimal, NoNul, RequestModel, fault, string_or_array
from turnwise_server.chat.turn import TurnRequest
from turnwise_server.errors import RequestError

MAX_CHOICES = 8
MAX_BIASES = 1024
MAX_STOP_CHARACTERS = 1024
MAX_TOKENS = 2**31 - 1
MAX_SEED = 2**63 - 1

_TOKEN_ID = re.compile(r"[0-9]{1,9}")


def _no_such_feature(value: object) -> object:
    """Refuse what would change the reply if we could do it; an empty value asks for nothing."""
    if value in (None, False, "", [], {}, "none", "auto"):
        return value
    raise fault("unsupported_parameter", "Unsupported parameter: '{param}' is not supported with this model.")


def _token_ids(value: dict[str, float]) -> dict[str, float]:
    if all(_TOKEN_ID.fullmatch(key) for key in value):
        return value
    raise fault("invalid_value", "Invalid key in '{param}': every key must be a token id, such as \"42\".")


Unsupported = Annotated[object, AfterValidator(_no_such_feature)]
Count = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
Penalty = Annotated[Decimal, Field(ge=-2, le=2)]
Label = Annotated[str, Field(max_length=512)]
StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS), NoNul]
StopStrings = Annotated[list[StopString], Field(max_length=4, fail_fast=True)]
ModelName = Annotated[str, Field(min_length=1)]


class StreamOptions(RequestModel):
    """What a stream carries besides text."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class TokenChoice(RequestModel):
    """How the next token is chosen: OpenAI's parameters, and the extensions of other servers."""

    temperature: Annotated[Decimal, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Decimal, Field(ge=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-MAX_SEED - 1, le=MAX_SEED)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    top_k: Annotated[int, Field(ge=-1, le=MAX_TOKENS)] | None = None
    min_p: Annotated[Decimal, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[Decimal, Field(gt=0, le=10)] | None = None

    def choosing(self, turn: TurnRequest) -> TurnRequest:
        """Return the turn with what these parameters ask of the chat layer."""
        return replace(
            turn,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=None if self.top_k is None else max(self.top_k, 0),
            min_p=self.min_p or 0.0,
            seed=self.seed,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            repetition_penalty=self.repetition_penalty,
        )


class SamplingRequest(TokenChoice):
    """The parameters that chat and text completions share, OpenAI's and the extensions of other servers."""

    model: ModelName | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    max_tokens: Count | None = None
    stop: (
        Annotated[
            Annotated[StopString, Tag("string")] | Annotated[StopStrings, Tag("array")],
            string_or_array("strings"),
        ]
        | None
    ) = None
    logit_bias: (
        Annotated[
            dict[str, Annotated[Decimal, Field(ge=-100, le=100)]],
            Field(max_length=MAX_BIASES),
            AfterValidator(_token_ids),
        ]
        | None
    ) = None
    user: Label | None = None

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with a usage chunk."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def check_stream_options(self) -> None:
        """Refuse options of a stream where there is none.

        Raises:
            RequestError: naming `stream_options`.
        """
        if self.stream_options is not None and not self.stream:
            raise RequestError(
                "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
                param="stream_options",
                code="invalid_value",
            )

    def sampling_turn(self, *, id: str, tenant: str) -> TurnRequest:  # noqa: A002 - the field's name on the wire
        """Return what these parameters ask of the chat layer; the caller adds what is to be answered."""
        stop = self.stop or []
        turn = TurnRequest(
            id=id,
            tenant=tenant,
            n=self.n or 1,
            max_tokens=self.max_tokens,
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            logit_bias={int(token_id): bias for token_id, bias in (self.logit_bias or {}).items()},
        )
        return self.choosing(turn)
