"""The words and the kinds of text that every part of the policy is made of."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError


def _score(value: object) -> object:
    if value == "detector" or (type(value) in (int, float) and 0 <= value <= 1):  # type: ignore[operator]
        return value
    raise PydanticCustomError("score", "must be a number from 0 to 1, or the word detector")


OpenAICategory: TypeAlias = Literal[
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/intent",
    "self-harm/instructions",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
]
OPENAI_CATEGORIES: Final[tuple[OpenAICategory, ...]] = get_args(OpenAICategory)
"""The names of OpenAI's moderation, in its order."""

Stage: TypeAlias = Literal["input", "output"]
Threshold: TypeAlias = Annotated[
    float | Literal["detector"],
    BeforeValidator(_score),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"const": "detector"}]}),
]
Id: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
Text: TypeAlias = Annotated[str, Field(pattern=r"\S", max_length=4000)]
Language: TypeAlias = Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]
Region: TypeAlias = Annotated[str, Field(pattern=r"^(default|[A-Z]{2})$")]
Sha256: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Phrases: TypeAlias = Annotated[
    dict[Id, tuple[Text, ...]], Field(json_schema_extra={"additionalProperties": False})
]
"""Phrases by category."""
LocalText: TypeAlias = Annotated[
    dict[Language, Text], Field(min_length=1, json_schema_extra={"additionalProperties": False})
]
"""A text in several languages; the policy's default language is always among them."""


class Part(BaseModel):
    """A part of the policy: frozen, with no keys but its own, and the string under a field as its description."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, protected_namespaces=()
    )
