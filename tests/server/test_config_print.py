"""What --print-config prints can be fed back, and shows no secret."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwise_server.config import SECRET_FIELDS, Settings
from turnwise_server.config_print import as_toml
from turnwise_server.config_sources import Configuration, load_configuration

pytestmark = pytest.mark.usefixtures("clean_environment")


def test_what_is_printed_gives_the_same_settings_again(tmp_path: Path) -> None:
    flags = {
        "port": 1,
        "insecure": True,
        "model_name": 'a "name"\\ with \x7f, \t and ünïcode 😀',
        "request_timeout_s": float("inf"),
        "drain_timeout_s": 1e16,
        "allowed_hosts": "a.example,b.example",
        "models": "small=org/small,other/id=./models/other",
        "fake_script": "script.json",
    }
    first = load_configuration(flags)
    file = tmp_path / "printed.toml"
    file.write_text(as_toml(first), encoding="utf-8")
    again = load_configuration({}, file)
    assert again.settings == first.settings
    assert (
        set(again.places)
        == {field for field, value in first.settings.model_dump().items() if value is not None}
        - SECRET_FIELDS
    )


def test_every_setting_is_printed_once_with_where_it_came_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "t.toml"
    file.write_text("\nmax_batch = 4\n")
    monkeypatch.setenv("TURNWISE_HOST", "localhost")
    lines = as_toml(load_configuration({"port": 1}, file)).splitlines()
    assert "port = 1  # --port" in lines
    assert 'host = "localhost"  # TURNWISE_HOST' in lines
    assert f"max_batch = 4  # {file}:2" in lines
    assert 'engine = "torch"  # default' in lines
    assert "# threads is not set  # default" in lines
    assert [line.removeprefix("# ").split()[0] for line in lines] == list(Settings.model_fields)


def test_secrets_are_named_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "# api_keys is not set  # default\n" in as_toml(load_configuration({}))
    monkeypatch.setenv("TURNWISE_API_KEYS", "canary")
    printed = as_toml(load_configuration({}))
    assert "# api_keys is set, and not shown  # TURNWISE_API_KEYS\n" in printed
    assert "canary" not in printed


@given(name=st.text(min_size=1, alphabet=st.characters(codec="utf-8")))
def test_any_text_is_printed_as_toml(name: str) -> None:
    settings: dict[str, Any] = {"model_name": name, "models": {f"{name}-": name}}
    printed = tomllib.loads(as_toml(Configuration(Settings(**settings), {})))
    assert {field: printed[field] for field in settings} == settings
