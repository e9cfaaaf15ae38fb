"""The body of POST /v1/moderations: texts, as OpenAI's clients write them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, Discriminator, Field, Tag

from turnwise_server.api.errors import shorten
from turnwise_server.api.sampling_request import ModelName
from turnwise_server.api.validation import NoNul, RequestModel, fault

MAX_INPUTS = 128
"""Most texts of one request, and most parts of one text."""
MAX_CHARS = 32_000
"""Longest text: about two seconds of one core, while other requests wait for their turn."""


def _text_only(value: str) -> str:
    if value == "text":
        return value
    raise fault(
        "unsupported_value",
        f"Unsupported value: '{{param}}' does not support {shorten(value, 40)!r}: this server judges text alone.",
    )


def _kind_of_input(value: object) -> str | None:
    if isinstance(value, str):
        return "text"
    if not isinstance(value, list):
        return None
    return "parts" if value and isinstance(value[0], dict) else "texts"


InputText = Annotated[str, Field(min_length=1, max_length=MAX_CHARS), NoNul]


class InputPart(RequestModel):
    """A part of a text. Pictures are refused, for nothing here can judge them."""

    type: Annotated[str, AfterValidator(_text_only)]
    text: InputText


def _not_too_long(parts: list[InputPart]) -> list[InputPart]:
    if (chars := len(_joined(parts))) <= MAX_CHARS:
        return parts
    raise fault(
        "string_above_max_length",
        f"Invalid '{{param}}': its parts are one text, of {chars} characters. The maximum length is {MAX_CHARS}.",
    )


def _joined(parts: Iterable[InputPart]) -> str:
    """Return the text that parts are: each stands on a line of its own, as in the prompt of a message."""
    return "\n".join(part.text for part in parts)


Several = Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)
Inputs = Annotated[
    Annotated[InputText, Tag("text")]
    | Annotated[list[InputText], Several, Tag("texts")]
    | Annotated[list[InputPart], Several, AfterValidator(_not_too_long), Tag("parts")],
    Discriminator(
        _kind_of_input,
        custom_error_type="string_or_array_of_strings or objects",
        custom_error_message="Input should be a string or an array",
    ),
]


class ModerationRequest(RequestModel):
    """What to judge, and by what."""

    input: Inputs
    model: ModelName | None = None

    @property
    def texts(self) -> list[str]:
        """The texts, one for each result."""
        if isinstance(self.input, str):
            return [self.input]
        texts = [each for each in self.input if isinstance(each, str)]
        return texts or [_joined(each for each in self.input if isinstance(each, InputPart))]
