"""Every keyword of a schema binds, annotates or is refused by name; no schema is too hostile to be answered soon."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from turnwise_server.chat.json_schema import ANNOTATIONS, FORMATS, MAX_DEPTH, _SchemaCheck, checked_schema
from turnwise_server.chat.structured import json_schema_grammar
from turnwise_server.errors import RequestError

Schema = dict[str, Any]

UNSUPPORTED = (
    "$anchor",
    "$dynamicAnchor",
    "$dynamicRef",
    "$vocabulary",
    "additionalItems",
    "contains",
    "contentSchema",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "else",
    "if",
    "maxContains",
    "minContains",
    "not",
    "nullable",
    "propertyNames",
    "requierd",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
    "uniqueItems",
)


def outcome(schema: Any) -> RequestError | None:
    """Return how a schema is refused, if it is."""
    try:
        json_schema_grammar(schema, param="schema")
    except RequestError as error:
        return error
    return None


def refusal(schema: Any) -> RequestError:
    """Return how a schema is refused."""
    error = outcome(schema)
    assert error is not None
    return error


@pytest.mark.parametrize("keyword", UNSUPPORTED)
def test_a_keyword_that_is_not_supported_is_named_with_its_path(keyword: str) -> None:
    error = refusal({"type": "object", "properties": {"a": {"anyOf": [{}, {keyword: {}}]}}})
    assert error.param == f"schema.properties.a.anyOf[1].{keyword}"
    assert error.code == "unsupported_value"
    assert repr(keyword) in error.message


INVALID: list[tuple[Schema, str, str]] = [
    ({"type": "text"}, "type", "invalid_value"),
    ({"type": []}, "type", "invalid_value"),
    ({"type": [{}]}, "type", "invalid_value"),
    ({"enum": []}, "enum", "invalid_value"),
    ({"enum": "a"}, "enum", "invalid_value"),
    ({"enum": ["a", {"b": "\x01"}]}, "enum[1].b", "unsupported_value"),
    ({"const": 2**60}, "const", "unsupported_value"),
    ({"minLength": -1}, "minLength", "invalid_value"),
    ({"minLength": 1.5}, "minLength", "invalid_value"),
    ({"maxItems": True}, "maxItems", "invalid_value"),
    ({"maxItems": 10**12}, "maxItems", "invalid_value"),
    ({"minimum": "1"}, "minimum", "invalid_value"),
    ({"maximum": 1e300}, "maximum", "unsupported_value"),
    ({"exclusiveMinimum": True}, "exclusiveMinimum", "invalid_value"),
    ({"multipleOf": 0}, "multipleOf", "invalid_value"),
    ({"multipleOf": 99999989}, "", "unsupported_value"),
    ({"allOf": [{"multipleOf": 997}, {"multipleOf": 991}]}, "", "unsupported_value"),
    ({"multipleOf": 1e-9}, "", "unsupported_value"),
    ({"pattern": 1}, "pattern", "invalid_value"),
    ({"pattern": "a" * 5000}, "pattern", "invalid_value"),
    ({"pattern": "(?=a)a"}, "pattern", "unsupported_value"),
    ({"pattern": "(?i)a"}, "pattern", "unsupported_value"),
    ({"pattern": "[a&&b]"}, "pattern", "unsupported_value"),
    ({"pattern": "[[:alpha:]]"}, "pattern", "unsupported_value"),
    ({"patternProperties": {"(?!a)": {}}}, "patternProperties", "unsupported_value"),
    ({"format": "regex"}, "format", "unsupported_value"),
    ({"format": 1}, "format", "unsupported_value"),
    ({"required": "a"}, "required", "invalid_value"),
    ({"required": [1]}, "required", "invalid_value"),
    ({"properties": []}, "properties", "invalid_value"),
    ({"properties": {"a": 1}}, "properties.a", "invalid_value"),
    ({"properties": {"a\x00": {}}}, "properties", "unsupported_value"),
    ({"items": [{}]}, "items", "invalid_value"),
    ({"prefixItems": {}}, "prefixItems", "invalid_value"),
    ({"anyOf": []}, "anyOf", "invalid_value"),
    ({"anyOf": [1]}, "anyOf[0]", "invalid_value"),
    ({"$ref": 1}, "$ref", "invalid_value"),
    ({"$ref": "https://example.com/s.json"}, "$ref", "unsupported_value"),
    ({"$ref": "#/$defs/missing"}, "$ref", "invalid_value"),
    ({"$ref": "#/enum", "enum": [1]}, "$ref", "invalid_value"),
    ({"properties": {"a": {"$id": "x"}}}, "properties.a.$id", "unsupported_value"),
    ({"minProperties": 2}, "minProperties", "unsupported_value"),
]


@pytest.mark.parametrize(("schema", "place", "code"), INVALID)
def test_a_wrong_value_is_refused_where_it_stands(schema: Schema, place: str, code: str) -> None:
    error = refusal(schema)
    assert error.param == f"schema.{place}".rstrip(".")
    assert error.code == code
    assert error.param in error.message


UNSATISFIABLE: list[tuple[Schema, str]] = [
    ({"minLength": 2, "maxLength": 1, "type": "string"}, "minLength"),
    ({"minimum": 2, "maximum": 1, "type": "integer"}, "minimum"),
    ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "incompatible types"),
    ({"$ref": "#"}, "nothing that can be written"),
    ({"type": "string", "pattern": "(a"}, "unclosed group"),
    ({"oneOf": [{"type": "number"}, {"type": "integer"}]}, "'oneOf'"),
    ({"type": "object", "required": ["a"], "additionalProperties": False}, "required property 'a'"),
    ({"patternProperties": {"a": {}, "b": {}}}, "not disjoint"),
]


@pytest.mark.parametrize(("schema", "reason"), UNSATISFIABLE)
def test_what_no_reply_can_be_held_to_is_refused_with_the_reason(schema: Schema, reason: str) -> None:
    error = refusal(schema)
    assert (error.param, error.code) == ("schema", "invalid_value")
    assert reason in error.message
    assert "\n" not in error.message


def test_annotations_and_extensions_bind_nothing() -> None:
    annotations = dict.fromkeys(ANNOTATIONS, "words") | {"x-order": [1], "$id": "https://example.com/s"}
    assert checked_schema({**annotations, "type": "string"}, param="schema") == {"type": "string"}
    assert checked_schema({"properties": {"title": {"title": "T"}}}, param="schema") == {
        "properties": {"title": {}}
    }


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_named_is_supported(name: str) -> None:
    assert json_schema_grammar({"type": "string", "format": name})


def test_references_may_escape_names() -> None:
    schema = {
        "$defs": {"a/b~c d": {"type": "null"}},
        "anyOf": [{"$ref": "#/$defs/a~1b~0c%20d"}, {"$ref": "#"}],
    }
    assert json_schema_grammar(schema)


def nested(depth: int) -> Schema:
    schema: Schema = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def test_nesting_is_bounded() -> None:
    assert json_schema_grammar(nested(MAX_DEPTH))
    assert "nested" in refusal(nested(MAX_DEPTH + 1)).message
    assert "nested" in refusal(nested(190)).message


def options(count: int) -> Schema:
    """Return alternatives whose product is what has to be compiled."""
    pairs = [
        [{"properties": {f"p{i}": {"const": k}}, "required": [f"p{i}"]} for k in (0, 1)] for i in range(count)
    ]
    return {"type": "object", "allOf": [{"anyOf": pair} for pair in pairs]}


HOSTILE: dict[str, Schema] = {
    "enum of hashes": {"enum": [hashlib.sha256(bytes([i % 256, i // 256])).hexdigest() for i in range(900)]},
    "a megabyte": {"enum": [f"value {i}" for i in range(60_000)]},
    "a megabyte of text": {"const": "x" * 1_000_000},
    "a thousand optional properties": {"type": "object", "properties": {f"p{i}": {} for i in range(1000)}},
    "ten thousand properties": {"type": "object", "properties": {f"p{i}": {} for i in range(10_000)}},
    "alternatives": {
        "anyOf": [{"properties": {f"p{i}": {"type": "null"}}, "required": [f"p{i}"]} for i in range(600)]
    },
    "product of 8 alternatives": options(8),
    "product of 12 alternatives": options(12),
    "product of 40 alternatives": options(40),
    "chain of references": {
        "$defs": {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(500)} | {"d500": {"type": "null"}},
        "$ref": "#/$defs/d0",
    },
    "doubling references": {
        "$defs": {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(60)} | {"d60": {}},
        "$ref": "#/$defs/d0",
    },
    "references in a circle": {
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
        "$ref": "#/$defs/a",
    },
    "nested repetition": {"type": "string", "pattern": "^(((a|b){1,99}c?){1,99}d?){1,99}$"},
    "backtracking": {"type": "string", "pattern": "^(a+)+$"},
    "many states": {"type": "string", "pattern": "(a|b)*a(a|b){30}"},
    "intersection of many states": {
        "allOf": [{"type": "string", "pattern": f"(a|b)*{c}(a|b){{{i}}}"} for i, c in enumerate("abababab")]
    },
    "a long alternative": {
        "type": "string",
        "pattern": f"^({'|'.join(f'w{i}[a-z]*' for i in range(400))})*$",
    },
    "endless lists": {"type": "array", "items": {"type": "null"}, "minItems": 10**9},
    "endless text": {"type": "string", "minLength": 10**6},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_hostile_schema_takes_long(name: str) -> None:
    began = time.process_time()
    error = outcome(HOSTILE[name])
    assert error is None or len(error.message) < 1000
    assert time.process_time() - began < 3


KEYWORDS = sorted(_SchemaCheck("schema")._keywords)
SCRAPS: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 1200)
    | st.floats()
    | st.sampled_from(["a", "string", "object", "#", "^a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*KEYWORDS, "not"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schema=SCRAPS)
def test_whatever_is_sent_is_compiled_or_refused(schema: Any) -> None:
    error = outcome(schema)
    if error:
        assert str(error.param).startswith("schema")
        assert error.code in {"invalid_value", "invalid_type", "unsupported_value"}


def test_the_documentation_names_every_keyword_format_and_annotation() -> None:
    page = (Path(__file__).parents[3] / "docs" / "http-api.md").read_text()
    section = page.partition("### Structured output")[2].partition("\n### ")[0]
    missing = [word for word in (*KEYWORDS, *FORMATS, *ANNOTATIONS) if f"`{word}`" not in section]
    assert missing == []
