"""The promise about numbers and nesting: no JSON that anybody can send hangs a route or makes it fail."""

import json
import time
from typing import Any

from support.fake_server import FakeServer, fake_server
from support.generating_routes import ROUTES

BEYOND_BOUNDS = ("1" + "0" * 4000, "-1" + "0" * 4000, "1e400", "-1e400")
NO_JSON = ("NaN", "Infinity", "-Infinity")
EXTREMES = ("9" * 18, "1" + "0" * 400, "1e-400", "1e308", "-0.0")
NESTED = 60_000


def _kinds(schema: dict[str, Any], schemas: dict[str, Any]) -> set[str]:
    """The JSON types that a property may have, one level deep through unions and references."""
    options = schema.get("anyOf") or [schema]
    options = [schemas[item["$ref"].rpartition("/")[2]] if "$ref" in item else item for item in options]
    return {item["type"] for item in options if isinstance(item.get("type"), str)}


async def posted_properties(server: FakeServer) -> dict[str, dict[str, set[str]]]:
    """Every top-level parameter of every POST route in the document, with its types."""
    document = (await server.client.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]
    found = {}
    for path, operations in document["paths"].items():
        if "requestBody" in operations.get("post", {}):
            schema = operations["post"]["requestBody"]["content"]["application/json"]["schema"]
            schema = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
            properties = schema.get("properties", {})
            found[path] = {name: _kinds(about, schemas) for name, about in properties.items()}
    return found


async def test_promise_24_no_number_and_no_nesting_hangs_or_breaks_any_route() -> None:
    """Every parameter of the document is sent as every such number and in 60,000 levels; the rest is fuzzed.

    Random requests made from the document are tests/end_to_end/test_openapi_contract.py.
    """
    async with fake_server(settings={"default_max_tokens": 4}) as server:
        routes = await posted_properties(server)
        assert {route.path for route in ROUTES.values()} < set(routes)
        for path, properties in routes.items():
            asked = next((route for route in ROUTES.values() if route.path == path), None)
            basis = asked.body() if asked else {"model": "test"}

            async def send(name: str, value: str, basis: Any = basis, path: str = path) -> int:
                rest = json.dumps({key: item for key, item in basis.items() if key != name})
                began = time.perf_counter()
                reply = await server.client.post(path, content=f'{rest[:-1]}, "{name}": {value}}}')
                assert time.perf_counter() - began < 1, (path, name, value[:9])
                assert reply.status_code < 500, (path, name, value[:9], reply.text)
                if reply.status_code != 200:
                    assert isinstance(reply.json()["error"], dict)
                return reply.status_code

            numeric = {name for name, kinds in properties.items() if kinds & {"integer", "number"}}
            for name in {*numeric, "unknown", *properties}:
                for number in BEYOND_BOUNDS:
                    status = await send(name, number)
                    assert status >= 400 or name not in numeric, (path, name, number[:9])
                for number in NO_JSON:
                    assert await send(name, number) >= 400
                for number in EXTREMES:
                    await send(name, number)
                for opening, closing in (("[", "]"), ('{"a":', "}")):
                    assert await send(name, opening * NESTED + "1" + closing * NESTED) >= 400
