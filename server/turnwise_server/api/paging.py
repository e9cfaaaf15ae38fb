"""Lists in pages, as OpenAI has them: what a query may ask for, and the object that answers it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, Field
from starlette.requests import Request
from starlette.responses import Response

from turnwise_server.api.validation import RequestModel, Text, validate
from turnwise_server.api.wire import encode_json

MAX_LIMIT = 100
DEFAULT_LIMIT = 20

_NUMBER = re.compile(r"-?[0-9]{1,18}")
_PAIR = re.compile(r"(?P<name>\w+)\[(?P<key>.*)\]", re.DOTALL)


def _number(text: object) -> object:
    """Read what a query can only say in digits; anything else is refused as the text it is."""
    return int(text) if isinstance(text, str) and _NUMBER.fullmatch(text) else text


class PageQuery(RequestModel):
    """Which part of a list to show."""

    after: Text | None = None
    """The id of the last object of the page before."""
    limit: Annotated[int, BeforeValidator(_number), Field(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT
    order: Literal["asc", "desc"] = "asc"


Query = TypeVar("Query", bound=RequestModel)


def parse_query(model: type[Query], request: Request) -> Query:
    """Return the query of a request. `metadata[key]=value` is a pair of `metadata`; of repetitions the last counts.

    Raises:
        RequestError: with OpenAI's message, code and param.
    """
    values: dict[str, object] = {}
    for name, value in request.query_params.multi_items():
        pair = _PAIR.fullmatch(name)
        if pair is None:
            values[name] = value
            continue
        known = values.get(pair["name"])
        values[pair["name"]] = (known if isinstance(known, dict) else {}) | {pair["key"]: value}
    return validate(model, values)


def describe_query(model: type[RequestModel]) -> dict[str, Any]:
    """Declare the query of a route that reads it by itself."""
    content = model.model_json_schema()
    return {
        "parameters": [
            {"name": name, "in": "query", "required": False, "style": _style(schema), "schema": schema}
            for name, schema in content["properties"].items()
        ]
    }


def _style(schema: dict[str, Any]) -> str:
    return "deepObject" if schema.get("type") == "object" else "form"


class Page(BaseModel):
    """A page of a list."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


def page_response(items: Sequence[tuple[str, str]], *, has_more: bool) -> Response:
    """Answer with objects, each given by its id and its JSON, which is sent as it was stored."""
    ids = [item_id for item_id, _ in items]
    ends = {"first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None, "has_more": has_more}
    data = ",".join(json for _, json in items)
    content = f'{{"object":"list","data":[{data}],'.encode() + encode_json(ends)[1:]
    return Response(content, media_type="application/json")
