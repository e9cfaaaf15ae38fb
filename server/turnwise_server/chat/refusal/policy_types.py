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
_ID: Final = r"^[a-z][a-z0-9_-]{0,63}$"
_TEXT: Final = r"\S"
_LANGUAGE: Final = r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$"
_REGION: Final = r"^(default|[A-Z]{2})$"
_SHA256: Final = r"^[0-9a-f]{64}$"
PATTERNS_IN_WORDS: Final = {
    _ID: "must be small letters, digits, - and _, begin with a letter, and be no longer than 64 characters",
    _TEXT: "must not be empty",
    _LANGUAGE: "must be a language such as en or pt-BR",
    _REGION: "must be a country in two capitals such as US, or default",
    _SHA256: "must be 64 hexadecimal digits, letters small",
}
"""What a text has to be, for those who do not read patterns."""

Id: TypeAlias = Annotated[str, Field(pattern=_ID)]
Text: TypeAlias = Annotated[str, Field(pattern=_TEXT, max_length=4000)]
Language: TypeAlias = Annotated[str, Field(pattern=_LANGUAGE)]
Region: TypeAlias = Annotated[str, Field(pattern=_REGION)]
Sha256: TypeAlias = Annotated[str, Field(pattern=_SHA256)]
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
