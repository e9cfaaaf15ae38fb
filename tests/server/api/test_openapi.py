"""/openapi.json describes every route, with the error object for every status it may fail with."""

from typing import Any

from support.fake_server import fake_server
from turnwise_server.api.anthropic.errors import MESSAGES_PATHS
from turnwise_server.api.errors import ERROR_CODES


async def document() -> dict[str, Any]:
    async with fake_server() as server:
        content: dict[str, Any] = (await server.client.get("/openapi.json")).json()
    return content


async def test_every_route_is_described() -> None:
    assert {
        (method, path) for path, methods in (await document())["paths"].items() for method in methods
    } == {
        ("get", "/admin/models"),
        ("post", "/admin/models"),
        ("delete", "/admin/models/{model}"),
        ("post", "/v1/chat/completions"),
        ("get", "/v1/chat/completions"),
        ("get", "/v1/chat/completions/{completion_id}"),
        ("post", "/v1/chat/completions/{completion_id}"),
        ("delete", "/v1/chat/completions/{completion_id}"),
        ("get", "/v1/chat/completions/{completion_id}/messages"),
        ("post", "/v1/completions"),
        ("post", "/v1/responses"),
        ("post", "/v1/responses/input_tokens"),
        ("get", "/v1/responses/{response_id}"),
        ("delete", "/v1/responses/{response_id}"),
        ("post", "/v1/responses/{response_id}/cancel"),
        ("get", "/v1/responses/{response_id}/input_items"),
        ("post", "/v1/feedback"),
        ("post", "/v1/moderations"),
        ("get", "/v1/feedback/{reply_id}"),
        ("delete", "/v1/feedback/{reply_id}"),
        ("post", "/v1/messages"),
        ("post", "/v1/messages/count_tokens"),
        ("post", "/v1/tokenize"),
        ("post", "/v1/detokenize"),
        ("post", "/v1/apply-template"),
        ("get", "/v1/models"),
        ("get", "/v1/models/{model}"),
        ("get", "/v1/policy"),
        ("get", "/health"),
        ("get", "/ready"),
        ("get", "/metrics"),
        ("get", "/openapi.json"),
    }


async def test_every_error_is_declared_with_the_error_object() -> None:
    declared = set()
    for path, methods in (await document())["paths"].items():
        body = "AnthropicErrorBody" if path in MESSAGES_PATHS else "ErrorBody"
        for operation in methods.values():
            assert "422" not in operation["responses"]
            for status, response in operation["responses"].items():
                if status != "200":
                    schema = response["content"]["application/json"]["schema"]
                    assert schema == {"$ref": f"#/components/schemas/{body}"}, (path, status)
                    declared.add(status)
    assert {str(status) for status in ERROR_CODES.values()} - {"405"} <= declared


async def test_every_reference_resolves() -> None:
    content = await document()
    schemas = content["components"]["schemas"]

    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if "$ref" in node else []
            return own + [found for value in node.values() for found in references(value)]
        return [found for value in node for found in references(value)] if isinstance(node, list) else []

    names = {reference.removeprefix("#/components/schemas/") for reference in references(content)}
    assert names <= set(schemas)
    assert {
        "ChatCompletionRequest",
        "ChatCompletion",
        "ChatCompletionChunk",
        "ErrorBody",
        "ModelList",
    } <= names


async def test_request_limits_stand_in_the_schema() -> None:
    properties = (await document())["components"]["schemas"]["ChatCompletionRequest"]["properties"]
    assert {"minimum": 0.0, "maximum": 2.0, "type": "number"} in properties["temperature"]["anyOf"]
    assert {"minimum": 1, "maximum": 8, "type": "integer"} in properties["n"]["anyOf"]


async def test_models_are_listed_and_found_with_their_limits() -> None:
    async with fake_server(settings={"model_name": "org/name"}) as server:
        listed = await server.client.get("/v1/models")
        found = await server.client.get("/v1/models/org/name")
    assert listed.text == (
        '{"object":"list","data":[{"id":"org/name","object":"model","created":1760000000,"owned_by":"turnwise",'
        '"max_model_len":512,"default_max_tokens":512}]}'
    )
    assert found.json() == listed.json()["data"][0]
