"""Checks a client's JSON schema (draft 2020-12) and keeps what the grammar enforces. Nothing is ignored silently.

Every keyword either binds the reply, or is an annotation that never changes what is valid, or is refused by its name.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from urllib.parse import unquote

from typing_extensions import TypeIs

from turnwise_server.errors import RequestError

MAX_SCHEMA_CHARACTERS = 65_536
MAX_STRING_CHARACTERS = 4_096
"""Of a name, a constant or a pattern: each token of a constant costs time in proportion to what is left of it."""
MAX_DEPTH = 32
MAX_PROPERTIES = 1_000
MAX_MULTIPLE = 1_000
"""Of all distinct `multipleOf`, multiplied: the library's automaton has as many states."""

FORMATS = (
    "date-time",
    "time",
    "date",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "uuid",
    "uri",
)
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
ANNOTATIONS = frozenset(
    {
        "$comment",
        "$schema",
        "contentEncoding",
        "contentMediaType",
        "default",
        "deprecated",
        "description",
        "discriminator",
        "example",
        "examples",
        "readOnly",
        "title",
        "writeOnly",
    }
)
"""Say something about a value and never forbid one (`discriminator` and `example` are OpenAPI's)."""

_UNWRITABLE = re.compile(r"[\x00-\x07\x0b\x0e-\x1f\x7f]")
_NOT_ECMASCRIPT = re.compile(r"\[[^\]]*(?:&&|--|~~|\[)|\(\?(?!:|<[A-Za-z])")
"""What the library's regular expressions read otherwise than a schema means it, or not at all; escapes taken out."""

_COUNTS = frozenset(
    {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"},
)
_NUMBERS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_SCHEMAS = frozenset({"items", "additionalProperties"})
_SCHEMA_LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_SCHEMA_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions"})

_MAX_COUNT = 10**9
_MAX_EXACT = 2**53

Place = tuple[str | int, ...]
"""The way from the schema's root to a part of it."""


def checked_schema(schema: object, *, param: str) -> dict[str, object]:
    """Return the schema without annotations, if replies can be held to all of it.

    Raises:
        RequestError: its `param` begins with `param` and leads to the keyword at fault.
    """
    if not isinstance(schema, Mapping):
        raise RequestError(f"Invalid '{param}': it must be a JSON object.", param=param, code="invalid_type")
    check = _SchemaCheck(param)
    kept = check.node({name: value for name, value in schema.items() if name != "$id"}, ())
    check.finish()
    assert isinstance(kept, dict)
    size = len(json.dumps(kept))
    if size > MAX_SCHEMA_CHARACTERS:
        raise RequestError(
            f"Invalid '{param}': the schema has {size} characters of JSON, and at most {MAX_SCHEMA_CHARACTERS} are "
            "supported.",
            param=param,
            code="invalid_value",
        )
    return kept


class _SchemaCheck:
    """Walks over one schema; the first fault ends the walk."""

    def __init__(self, param: str) -> None:
        self._param = param
        self._places: set[Place] = set()
        self._refs: list[tuple[Place, str]] = []
        self._multiples: set[Fraction] = set()
        self._keywords: dict[str, Callable[[object, Place], object]] = {
            "$ref": self._ref,
            "const": self._constant,
            "enum": self._enum,
            "format": self._format,
            "multipleOf": self._multiple,
            "pattern": self._pattern,
            "required": self._required,
            "type": self._type,
            **dict.fromkeys(_COUNTS, self._count),
            **dict.fromkeys(_NUMBERS, self._number),
            **dict.fromkeys(_SCHEMAS, self.node),
            **dict.fromkeys(_SCHEMA_LISTS, self._list),
            **dict.fromkeys(_SCHEMA_MAPS, self._map),
        }

    def node(self, schema: object, place: Place) -> object:
        """Check a schema or a part that is one; return what of it binds."""
        self._places.add(tuple(map(str, place)))
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, Mapping):
            raise self._invalid(place, "it must be a schema, which is an object or a boolean")
        if len(place) > 2 * MAX_DEPTH:
            raise self._invalid(place, f"schemas may be nested {MAX_DEPTH} levels deep")
        kept: dict[str, object] = {}
        for keyword, value in schema.items():
            if keyword in self._keywords:
                kept[keyword] = self._keywords[keyword](value, (*place, keyword))
            elif keyword not in ANNOTATIONS and not keyword.startswith("x-"):
                raise self._unsupported(
                    (*place, keyword), f"the keyword {_short(keyword)!r} is not supported"
                )
        self._check_min_properties(kept, place)
        return kept

    def finish(self) -> None:
        """Check what only the whole schema shows."""
        for place, pointer in self._refs:
            if _target(pointer) not in self._places:
                raise self._invalid(place, f"{_short(pointer)!r} leads to no schema within this one")
        if (
            math.prod(multiple.numerator * multiple.denominator for multiple in self._multiples)
            > MAX_MULTIPLE
        ):
            raise self._unsupported(
                (),
                f"the values of 'multipleOf' are too many or too fine: their product may be {MAX_MULTIPLE}",
            )

    def _list(self, value: object, place: Place) -> list[object]:
        if not isinstance(value, list) or not value:
            raise self._invalid(place, "it must be an array of schemas that is not empty")
        return [self.node(schema, (*place, index)) for index, schema in enumerate(value)]

    def _map(self, value: object, place: Place) -> dict[str, object]:
        if not isinstance(value, Mapping):
            raise self._invalid(place, "it must be an object of schemas")
        if len(value) > MAX_PROPERTIES:
            raise self._invalid(
                place, f"it has {len(value)} entries, and at most {MAX_PROPERTIES} are supported"
            )
        for name in value:
            self._pattern(name, place) if place[-1] == "patternProperties" else self._text(name, place)
        return {name: self.node(schema, (*place, name)) for name, schema in value.items()}

    def _ref(self, value: object, place: Place) -> object:
        if not isinstance(value, str):
            raise self._invalid(place, "it must be a string")
        if value != "#" and not value.startswith("#/"):
            raise self._unsupported(place, "'$ref' is supported only within the schema, as '#' or '#/...'")
        self._refs.append((place, value))
        return value

    def _enum(self, value: object, place: Place) -> object:
        if not isinstance(value, list) or not value:
            raise self._invalid(place, "it must be an array that is not empty")
        for index, constant in enumerate(value):
            self._constant(constant, (*place, index))
        return value

    def _constant(self, value: object, place: Place) -> object:
        """Check that every text and number in a constant can be written exactly."""
        match value:
            case str():
                self._text(value, place)
            case bool() | None:
                pass
            case int() | float():
                self._number(value, place)
            case list():
                for index, item in enumerate(value):
                    self._constant(item, (*place, index))
            case dict():
                for name, item in value.items():
                    self._text(name, place)
                    self._constant(item, (*place, name))
        return value

    def _format(self, value: object, place: Place) -> object:
        if value not in FORMATS:
            raise self._unsupported(place, f"'format' is supported for: {', '.join(FORMATS)}")
        return value

    def _multiple(self, value: object, place: Place) -> object:
        number = self._number(value, place)
        if number <= 0:
            raise self._invalid(place, "it must be above 0")
        self._multiples.add(Fraction(str(number)))
        return value

    def _pattern(self, value: object, place: Place) -> str:
        pattern = self._text(value, place)
        if _NOT_ECMASCRIPT.search(re.sub(r"\\.", "", pattern, flags=re.DOTALL)):
            raise self._unsupported(
                place, "'pattern' is supported without lookaround, flags and brackets within brackets"
            )
        return pattern

    def _required(self, value: object, place: Place) -> object:
        if not isinstance(value, list):
            raise self._invalid(place, "it must be an array of strings")
        for name in value:
            self._text(name, place)
        return value

    def _type(self, value: object, place: Place) -> object:
        names = value if isinstance(value, list) else [value]
        if not names or not all(name in TYPES for name in names):
            raise self._invalid(place, f"it must be one of {', '.join(TYPES)}, or an array of those")
        return value

    def _count(self, value: object, place: Place) -> int:
        if not _is_number(value) or value % 1 != 0 or not 0 <= value <= _MAX_COUNT:
            raise self._invalid(place, f"it must be an integer from 0 to {_MAX_COUNT}")
        return int(value)

    def _number(self, value: object, place: Place) -> int | float:
        if not _is_number(value):
            raise self._invalid(place, "it must be a number")
        if abs(value) > _MAX_EXACT:
            raise self._unsupported(place, f"numbers are supported from {-_MAX_EXACT} to {_MAX_EXACT}")
        return value

    def _text(self, value: object, place: Place) -> str:
        if not isinstance(value, str):
            raise self._invalid(place, "it must be a string")
        if len(value) > MAX_STRING_CHARACTERS:
            raise self._invalid(place, f"texts in a schema may have {MAX_STRING_CHARACTERS} characters")
        if _UNWRITABLE.search(value):
            raise self._unsupported(
                place, "control characters other than \\b \\f \\n \\r \\t are not supported"
            )
        return value

    def _check_min_properties(self, schema: Mapping[str, object], place: Place) -> None:
        """Refuse what the grammar cannot count: names that the schema does not list may come twice."""
        least, required = schema.get("minProperties", 0), schema.get("required", ())
        assert isinstance(least, int)
        assert isinstance(required, list | tuple)
        if least > max(1, len(set(required))):
            raise self._unsupported(
                (*place, "minProperties"),
                "'minProperties' is supported up to 1, or the number of required properties",
            )

    def _invalid(self, place: Place, problem: str) -> RequestError:
        return self._fault(place, problem, "invalid_value")

    def _unsupported(self, place: Place, problem: str) -> RequestError:
        return self._fault(place, problem, "unsupported_value")

    def _fault(self, place: Place, problem: str, code: str) -> RequestError:
        steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)
        param = self._param + _short(steps)
        return RequestError(f"Invalid schema: {problem} ('{param}').", param=param, code=code)


def _is_number(value: object) -> TypeIs[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _target(pointer: str) -> Place:
    """Return where a JSON pointer in a URI fragment leads (RFC 6901, section 6)."""
    steps = unquote(pointer).removeprefix("#").split("/")[1:]
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in steps)


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}..."
