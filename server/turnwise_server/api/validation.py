"""Checks a JSON object against a request model and says what is wrong in OpenAI's words, codes and paths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    ValidationError,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from turnwise_server.api.errors import shorten
from turnwise_server.errors import RequestError


class RequestModel(BaseModel):
    """Base of request bodies: nothing is coerced, unknown fields are left out."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, protected_namespaces=())


_STRING_OR_ARRAY = "string_or_array_of_"

Model = TypeVar("Model", bound=RequestModel)


def fault(code: str, message: str) -> PydanticCustomError:
    """Make an error to raise in a validator; `message` is what the client reads, `{param}` in it the path."""
    return PydanticCustomError("wire", "{code}", {"code": code, "message": message})


def string_or_array(items: str) -> Discriminator:
    """Tell a string from an array of `items` in a union, by the tags "string" and "array"."""
    return Discriminator(
        lambda value: "string" if isinstance(value, str) else "array" if isinstance(value, list) else None,
        custom_error_type=f"{_STRING_OR_ARRAY}{items}",
        custom_error_message="Input should be a string or an array",
    )


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise fault(
            "invalid_value", "Invalid '{param}': it holds a NUL character (\\u0000), which is not text."
        )
    return text


NoNul = AfterValidator(_without_nul)
Text = Annotated[str, NoNul]
"""A string that people could have written."""


def _finite(value: dict[str, object]) -> dict[str, object]:
    rest: list[object] = [value]
    while rest:
        match rest.pop():
            case dict() as inner:
                rest.extend(inner.values())
            case list() as inner:
                rest.extend(inner)
            case float() as number if not math.isfinite(number):
                raise fault("invalid_value", "Invalid '{param}': it holds a number that is too large.")
    return value


JsonObject = Annotated[dict[str, object], AfterValidator(_finite)]
"""Any JSON object that can be written as JSON again: 1e400 can be read, but would be written as infinity."""

Metadata = Annotated[
    dict[
        Annotated[str, Field(max_length=64), NoNul],
        Annotated[str, Field(max_length=512), NoNul],
    ],
    Field(max_length=16),
]
"""Pairs that a client keeps with a stored object."""

Decimal = FiniteFloat


def validate(model: type[Model], body: Mapping[str, object]) -> Model:
    """Return the body as `model`.

    Raises:
        RequestError: with OpenAI's message, code and param for the first thing that is wrong.
    """
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise _request_error(error.errors(include_url=False)[0], body) from error


def missing_parameter(param: str) -> RequestError:
    """Return the error for a parameter that has to be there."""
    return RequestError(
        f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
    )


def unknown_fields(model: type[RequestModel], body: Mapping[str, object]) -> list[str]:
    """Return the top-level fields of the body that `model` does not know."""
    return [name for name in body if name not in model.model_fields]


def _request_error(problem: ErrorDetails, body: object) -> RequestError:
    param = _path(problem, body)
    message, code = _explain(problem, param)
    return RequestError(message, param=param, code=code)


def _path(problem: ErrorDetails, body: object) -> str:
    """Write a location as `messages[0].content`, without the union branches that pydantic adds to it."""
    value = body
    parts: list[str] = []
    for part in problem["loc"]:
        if isinstance(part, int) and isinstance(value, Sequence):
            parts.append(f"[{part}]")
            value = value[part]
        elif isinstance(value, Mapping) and part in value:
            parts.append(f".{part}")
            value = value[part]
    if problem["type"] == "missing":
        parts.append(f".{problem['loc'][-1]}")
    return shorten("".join(parts).removeprefix("."))


_EXPECTED = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a decimal",
    "string_type": "a string",
    "bool_type": "a boolean",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}


def _explain(problem: ErrorDetails, param: str) -> tuple[str, str]:
    kind, value, context = problem["type"], problem["input"], problem.get("ctx", {})
    if kind == "wire":
        return context["message"].replace("{param}", param), context["code"]
    if kind == "missing":
        return f"Missing required parameter: '{param}'.", "missing_required_parameter"
    if kind.startswith(_STRING_OR_ARRAY):
        items = kind.removeprefix(_STRING_OR_ARRAY)
        return _wrong_type(param, f"one of a string or array of {items}", value), "invalid_type"
    if kind == "finite_number" or (kind == "float_type" and type(value) is int):
        return _out_of_range(param, value)
    if kind in _EXPECTED:
        return _wrong_type(param, _EXPECTED[kind], value), "invalid_type"
    if kind == "literal_error":
        if not isinstance(value, str):
            return _wrong_type(param, "a string", value), "invalid_type"
        return (
            f"Invalid value: {shorten(value)!r}. Supported values are: {context['expected']}.",
            "invalid_value",
        )
    if kind in _BOUNDS:
        return _out_of_bounds(param, kind, value, context)
    if kind in _LENGTHS:
        return _wrong_length(param, kind, value, context)
    return f"Invalid '{param}': {problem['msg'][:1].lower()}{problem['msg'][1:]}.", "invalid_value"


_BOUNDS = {
    "greater_than_equal": ("ge", ">=", "below minimum", "below_min"),
    "greater_than": ("gt", ">", "below minimum", "below_min"),
    "less_than_equal": ("le", "<=", "above maximum", "above_max"),
}


def _out_of_bounds(param: str, kind: str, value: Any, context: Mapping[str, Any]) -> tuple[str, str]:
    key, sign, problem, code = _BOUNDS[kind]
    bound = context[key]
    number = "decimal" if isinstance(bound, float) else "integer"
    limit = f"{bound:g}" if isinstance(bound, float) else str(bound)
    message = (
        f"Invalid '{param}': {number} {problem} value. Expected a value {sign} {limit}, "
        f"but got {shorten(str(value), 40)} instead."
    )
    return message, f"{number}_{code}_value"


def _out_of_range(param: str, value: float) -> tuple[str, str]:
    size, code = ("large", "decimal_above_max_value") if value > 0 else ("small", "decimal_below_min_value")
    return f"Invalid '{param}': the number is too {size}.", code


_LENGTHS = {
    "too_short": ("an array", "array", "empty_array"),
    "too_long": ("an array", "array", "array_above_max_length"),
    "string_too_short": ("a string", "string", "empty_string"),
    "string_too_long": ("a string", "string", "string_above_max_length"),
}


def _wrong_length(param: str, kind: str, value: Any, context: Mapping[str, Any]) -> tuple[str, str]:
    thing, noun, code = _LENGTHS[kind]
    if isinstance(value, Mapping):
        text = f"Invalid '{param}': too many properties. Expected at most {context['max_length']}, got {len(value)}."
        return text, "object_above_max_properties"
    if kind.endswith("too_short"):
        limit = f"{thing} with minimum length {context['min_length']}, but got an empty {noun} instead."
        return f"Invalid '{param}': empty {noun}. Expected {limit}", code
    limit = f"{thing} with maximum length {context['max_length']}, but got {thing} with length {len(value)} instead."
    return f"Invalid '{param}': {noun} too long. Expected {limit}", code


def _wrong_type(param: str, expected: str, value: object) -> str:
    return f"Invalid type for '{param}': expected {expected}, but got {type_name(value)} instead."


def type_name(value: object) -> str:
    """Name a JSON value's type with its article."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case str():
            return "a string"
        case int():
            return "an integer"
        case float():
            return "a decimal"
        case list():
            return "an array"
        case _:
            return "an object"
