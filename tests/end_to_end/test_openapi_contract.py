"""Every route under requests made from /openapi.json, sound and unsound: no 5xx, and nothing that is not declared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from support.fake_model import write_fake_model, write_script
from support.live_server import LiveServer, live_server
from turnwise_server.api.moderations.model_names import LOCAL_NAME
from turnwise_server.api.openapi import document_of
from turnwise_server.app import ROUTERS

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
EXAMPLES = 25
"""For each route, beside those that cover every limit and type in the document."""


def _document() -> dict[str, Any]:
    app = FastAPI(openapi_url=None)
    for router in ROUTERS:
        app.include_router(router)
    return document_of(app)


schema = schemathesis.openapi.from_dict(_document())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    model = write_fake_model(tmp_path_factory.mktemp("model"))
    write_script(model / "script.json", "the quick brown fox")
    with live_server(model, "--engine", "fake", "--fake-script", str(model / "script.json")) as server:
        yield server


@pytest.mark.slow
@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_no_request_is_answered_by_a_fault_or_in_a_way_that_is_not_declared(
    case: schemathesis.Case[Any], server: LiveServer
) -> None:
    # Almost every request would stop at a model that is not served.
    if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
        case.body["model"] = LOCAL_NAME if case.operation.path == "/v1/moderations" else "test"
        if isinstance(moderation := case.body.get("moderation"), dict):
            moderation["model"] = LOCAL_NAME
    response = case.call(base_url=server.url, timeout=30)
    case.validate_response(response, checks=CHECKS)
