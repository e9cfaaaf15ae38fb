"""The form that a client may ask of a reply's text, such as `response_format` of chat completions."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from turnwise_server.api.validation import RequestModel, Text, fault, missing_parameter
from turnwise_server.chat.structured import json_object_grammar, json_schema_grammar
from turnwise_server.errors import RequestError

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def _format_name(value: str) -> str:
    if _NAME.fullmatch(value):
        return value
    raise fault(
        "invalid_value",
        "Invalid '{param}': it must have 1 to 64 characters, which are letters, digits, underscores and hyphens.",
    )


FormatName = Annotated[str, AfterValidator(_format_name)]


class NamedSchema(RequestModel):
    """A JSON schema. `strict` changes nothing: the reply is held to the schema either way."""

    name: FormatName
    description: Text | None = None
    json_schema: Annotated[dict[str, object], Field(alias="schema")]
    strict: bool | None = None


class ResponseFormat(RequestModel):
    """What the text of a reply has to be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None


def check_stop(form: ResponseFormat | None, stop: str | list[str] | None) -> None:
    """Refuse stop strings beside a form: where one occurs, it would cut the reply out of its form.

    Raises:
        RequestError: naming `stop`.
    """
    if stop and form is not None and form.type != "text":
        raise RequestError(
            f"'stop' cannot be given with a 'response_format' of type '{form.type}': a stop string would cut the JSON. "
            "The reply ends by itself when the JSON is complete.",
            param="stop",
            code="invalid_value",
        )


def format_grammar(form: ResponseFormat | None, *, param: str = "response_format") -> str | None:
    """Return the grammar that the reply has to follow; None for any text.

    Raises:
        RequestError: there is no schema where there has to be one, or replies cannot be held to it.
    """
    if form is None or form.type == "text":
        return None
    if form.type == "json_object":
        return json_object_grammar()
    if form.json_schema is None:
        raise missing_parameter(f"{param}.json_schema")
    return json_schema_grammar(form.json_schema.json_schema, param=f"{param}.json_schema.schema")
