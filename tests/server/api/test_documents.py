"""The documents name every setting, flag and error code, in the words of the code."""

import re
from pathlib import Path

import pytest

from support.fake_server import fake_server
from turnwise_server.api.chat_completions.request import ChatCompletionRequest
from turnwise_server.api.errors import ERROR_CODES
from turnwise_server.api.responses.request import ResponseRequest
from turnwise_server.api.text_completions.request import CompletionRequest
from turnwise_server.config import ENV_PREFIX, SECRET_FIELDS, Settings, flag_name
from turnwise_server.config_sources import load_configuration

ROOT = Path(__file__).parents[3]
CONFIGURATION = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
HTTP_API = (ROOT / "docs/http-api.md").read_text(encoding="utf-8")


def shown_default(field: str) -> str:
    default = Settings.model_fields[field].default
    if field == "model":
        return "the starter model"
    if default in (None, (), {}):
        return ""
    if default is False:
        return "off"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


@pytest.mark.parametrize("field", Settings.model_fields)
def test_every_setting_is_documented_as_it_is(field: str) -> None:
    description = Settings.model_fields[field].description
    assert description, "write a string under the field"
    flag = "" if field in SECRET_FIELDS else f"`{flag_name(field)}`"
    row = f"| {flag} | `{ENV_PREFIX}{field.upper()}` | {shown_default(field)} | {description} |"
    assert row in CONFIGURATION


def test_no_setting_is_documented_that_does_not_exist() -> None:
    documented = re.findall(r"^\| [^|]* \| `TURNWISE_([A-Z_]+)` \|", CONFIGURATION, re.MULTILINE)
    assert sorted(documented) == sorted(field.upper() for field in Settings.model_fields)


def test_the_configuration_file_that_is_shown_can_be_used(tmp_path: Path) -> None:
    shown = re.search(r"```toml\n(.*?)```", CONFIGURATION, re.DOTALL)
    assert shown
    (tmp_path / "turnwise.toml").write_text(shown[1])
    assert len(load_configuration({}, tmp_path / "turnwise.toml").places) > 2


@pytest.mark.parametrize(("code", "status"), ERROR_CODES.items())
def test_every_error_code_is_documented_with_its_status(code: str, status: int) -> None:
    assert re.search(rf"^\| {status} \|.*`{code}`", HTTP_API, re.MULTILINE)


def test_no_error_code_is_documented_that_does_not_exist() -> None:
    rows = re.findall(r"^\| \d{3} \| \w+ \| ([^|]+) \|", HTTP_API, re.MULTILINE)
    assert {code for row in rows for code in re.findall(r"`(\w+)`", row)} == set(ERROR_CODES)


@pytest.mark.parametrize(
    "parameter",
    ChatCompletionRequest.model_fields | CompletionRequest.model_fields | ResponseRequest.model_fields,
)
def test_every_parameter_is_documented(parameter: str) -> None:
    assert re.search(rf"`{parameter}\b", HTTP_API)


async def test_every_route_is_documented_with_its_methods() -> None:
    async with fake_server() as server:
        paths = (await server.client.get("/openapi.json")).json()["paths"]
    rows = [line.split("|")[1] for line in HTTP_API.splitlines() if line.startswith("| `")]
    for path, methods in paths.items():
        shown = re.sub(r"{\w+}", "{id}", path)
        named = {
            method
            for row in rows
            for methods_of_row, of_row in re.findall(r"((?:`?[A-Z]+`?(?:, | and )?)+) (/[^`]*)`", row)
            if of_row == shown
            for method in re.findall("[A-Z]+", methods_of_row)
        }
        assert {method.upper() for method in methods} <= named, path
