"""Every failure on every route is OpenAI's error object, and no more than that is told."""

from typing import Any

import httpx2
import pytest

from support.fake_server import FakeServer, fake_server
from turnwise_server.api.errors import ERROR_CODES


def assert_error_object(reply: httpx2.Response, status: int, type_: str, code: str | None) -> None:
    error = reply.json()["error"]
    assert list(reply.json()) == ["error"]
    assert list(error)[:4] == ["message", "type", "param", "code"]
    assert (reply.status_code, error["type"], error["code"]) == (status, type_, code)
    assert error["message"]
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-request-id"]
    assert reply.headers["openai-processing-ms"]
    assert code is None or ERROR_CODES[code] == status


@pytest.mark.parametrize(
    "path", ["/", "/nope", "/v1", "/v1/models/", "/v1/chat/completions/", "/v1/embeddings"]
)
async def test_an_unknown_address_is_an_error_object(path: str) -> None:
    async with fake_server() as server:
        reply = await server.client.get(path)
    code = "model_not_found" if path == "/v1/models/" else "unknown_url"
    assert_error_object(reply, 404, "invalid_request_error", code)


async def test_the_text_of_an_unknown_address_names_method_and_path() -> None:
    async with fake_server() as server:
        reply = await server.client.post("/v1/engines", content=b"{}")
    assert reply.json()["error"]["message"].startswith("Unknown request URL: POST /v1/engines.")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/v1/chat/completions", "GET, POST"),
        ("PUT", "/v1/chat/completions/chatcmpl-1", "DELETE, GET, POST"),
        ("DELETE", "/v1/models", "GET"),
        ("PATCH", "/v1/models/test", "GET"),
        ("OPTIONS", "/v1/chat/completions", "GET, POST"),
        ("POST", "/health", "GET"),
        ("POST", "/openapi.json", "GET"),
    ],
)
async def test_a_wrong_method_is_an_error_object_with_allow(method: str, path: str, allow: str) -> None:
    async with fake_server() as server:
        reply = await server.client.request(method, path)
    assert_error_object(reply, 405, "invalid_request_error", None)
    assert reply.headers["allow"] == allow


@pytest.mark.parametrize("name", ["other", "org/name", "a b", "%2e%2e"])
async def test_an_unknown_model_is_an_error_object(name: str) -> None:
    async with fake_server() as server:
        asked = await server.chat(model=name)
        looked_up = await server.client.get(f"/v1/models/{name}")
    assert_error_object(asked, 404, "invalid_request_error", "model_not_found")
    assert_error_object(looked_up, 404, "invalid_request_error", "model_not_found")
    assert asked.json()["error"]["message"] == (
        f"The model `{name}` does not exist or you do not have access to it."
    )


async def fail_inside(server: FakeServer, **body: Any) -> httpx2.Response:
    def explode(_prepared: object) -> object:
        raise RuntimeError("secret detail")

    server.services.models.default.chat.start = explode  # type: ignore[method-assign,assignment]
    return await server.chat(**body)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_fault_of_ours_tells_the_request_id_and_nothing_else(
    stream: bool, log_lines: list[dict[str, Any]]
) -> None:
    async with fake_server() as server:
        reply = await fail_inside(server, stream=stream)
    assert_error_object(reply, 500, "server_error", None)
    assert reply.headers["x-request-id"] in reply.json()["error"]["message"]
    assert "secret detail" not in reply.text
    assert "secret detail" not in str(log_lines)
    fault = next(line for line in log_lines if line["event"] == "unexpected_error")
    assert fault["error_type"] == "RuntimeError"
    assert fault["request_id"] == reply.headers["x-request-id"]


@pytest.mark.parametrize(
    ("offered", "is_kept"),
    [("abc-1.2_3", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ("é", False), ("", False)],
)
async def test_a_harmless_request_id_of_the_client_is_kept(offered: str, is_kept: bool) -> None:
    async with fake_server() as server:
        reply = await server.client.get("/health", headers={b"x-request-id": offered.encode()})
    answered = reply.headers["x-request-id"]
    assert (answered == offered) is is_kept
    assert is_kept or answered.startswith("req_")
    assert is_kept or len(answered) == len("req_") + 32
