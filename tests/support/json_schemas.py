"""Draws JSON schemas that replies can be held to, small enough for a babbling model to come to an end."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

Schema = dict[str, Any]

NAMES = st.sampled_from(
    ["a", "b", "name", "naïve", 'quo"te', "new\nline", "with space", "日本", "back\\slash"]
)
CONSTANTS = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**6), 10**6), st.sampled_from([0.5, -2.25, 1e3]), NAMES
)


def _bounded(low: str, high: str, most: int) -> st.SearchStrategy[Schema]:
    bounds = st.tuples(st.integers(0, most), st.integers(0, most)).map(sorted)
    return bounds.map(lambda pair: {low: pair[0], high: pair[1]})


LEAVES: st.SearchStrategy[Schema] = st.one_of(
    st.sampled_from(["null", "boolean"]).map(lambda name: {"type": name}),
    _bounded("minLength", "maxLength", 6).map(lambda bounds: {"type": "string", **bounds}),
    st.sampled_from(["^[a-c]{1,4}$", "^(ab|cd)+$", r"^\d{3}-\d{2}$", "x", r"^\w\s?\w$"]).map(
        lambda pattern: {"type": "string", "pattern": pattern, "maxLength": 8}
    ),
    st.sampled_from(["date", "ipv4", "uuid", "time"]).map(lambda name: {"type": "string", "format": name}),
    _bounded("minimum", "maximum", 5000).map(lambda bounds: {"type": "integer", **bounds}),
    st.just({"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 700}),
    st.just({"type": "number", "exclusiveMinimum": -1.5, "maximum": 2.25}),
    st.lists(CONSTANTS, min_size=1, max_size=4).map(lambda values: {"enum": values}),
    CONSTANTS.map(lambda value: {"const": value}),
    st.just({"type": ["integer", "null"], "minimum": 0, "maximum": 9}),
)


def _objects(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    def build(properties: dict[str, Schema], count: int, rest: object) -> Schema:
        required = list(properties)[:count]
        return {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": rest,
            "maxProperties": len(properties) + 1,
        }

    closed = st.dictionaries(NAMES, inner, max_size=4).map(
        lambda properties: {
            "type": "object",
            "properties": properties,
            "required": list(properties)[:2],
            "additionalProperties": False,
        }
    )
    patterned = inner.map(
        lambda schema: {
            "type": "object",
            "patternProperties": {"^[ab]{1,2}$": schema},
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 2,
        }
    )
    opened = st.builds(build, st.dictionaries(NAMES, inner, max_size=1), st.just(1), inner | st.just(False))
    return closed | patterned | opened


def _arrays(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    plain = st.builds(
        lambda items, bounds: {"type": "array", "items": items, **bounds},
        inner,
        _bounded("minItems", "maxItems", 3),
    )
    tuples = st.lists(inner, min_size=1, max_size=3).map(
        lambda items: {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}
    )
    return plain | tuples


def _combined(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    choices = st.lists(inner, min_size=1, max_size=3)
    merged = st.builds(
        lambda first, second: {
            "allOf": [
                {"type": "object", "properties": {"a": first}, "required": ["a"], "maxProperties": 2},
                {"properties": {"b": second}, "required": ["b"]},
            ]
        },
        inner,
        inner,
    )
    tagged = st.lists(inner, min_size=1, max_size=3).map(
        lambda schemas: {
            "oneOf": [
                {
                    "type": "object",
                    "properties": {"kind": {"const": f"kind {number}"}, "value": schema},
                    "required": ["kind", "value"],
                    "maxProperties": 2,
                }
                for number, schema in enumerate(schemas)
            ]
        }
    )
    return choices.map(lambda schemas: {"anyOf": schemas}) | merged | tagged


def _recursive(inner: Schema) -> Schema:
    return {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "value": inner,
                    "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]},
                },
                "required": ["value", "next"],
                "additionalProperties": False,
            }
        },
        "$ref": "#/$defs/node",
    }


_ANY: st.SearchStrategy[Schema] = st.recursive(
    LEAVES, lambda inner: _objects(inner) | _arrays(inner) | _combined(inner), max_leaves=6
) | LEAVES.map(_recursive)


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    """Draw a schema. A function, because the strategy spelled out is too long for Hypothesis to print."""
    return draw(_ANY)
