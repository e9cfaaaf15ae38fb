"""The `turnwise-server` command and its settings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from turnwise_server import __version__, cli
from turnwise_server.auth import KeyRing
from turnwise_server.config import Settings
from turnwise_server.config_sources import load_configuration
from turnwise_server.errors import ConfigurationError

runner = CliRunner()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TURNWISE_")]:
        monkeypatch.delenv(name)


def test_a_flag_goes_before_the_environment_and_that_before_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TURNWISE_PORT", "9001")
    monkeypatch.setenv("TURNWISE_MAX_BATCH", "")
    settings = load_configuration({"max_messages": 7}).settings
    assert (settings.max_messages, settings.port, settings.max_batch) == (7, 9001, 32)
    assert load_configuration({"port": 9002}).settings.port == 9002


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"port": 70_000}, "port (--port)"),
        ({"engine": "magic"}, "engine (--engine)"),
        ({"drain_timeout_s": float("nan")}, "drain_timeout_s (--drain-timeout-s)"),
        ({"model_name": ""}, "model_name (--model-name)"),
    ],
)
def test_a_setting_that_is_not_valid_is_named(flags: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_configuration(flags)
    assert named in str(refused.value)


def test_lists_are_separated_by_commas_and_keys_stay_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNWISE_API_KEYS", "first-key, second-key,")
    monkeypatch.setenv("TURNWISE_ALLOWED_HOSTS", "a.example,b.example")
    settings = load_configuration({}).settings
    assert [key.get_secret_value() for key in settings.api_keys] == ["first-key", "second-key"]
    assert settings.allowed_hosts == ("a.example", "b.example")
    assert "first-key" not in repr(settings)


@pytest.mark.parametrize(
    ("model", "name"),
    [("/models/starter", "starter"), ("org/name", "name"), ("./x/", "x"), (".", Path.cwd().name)],
)
def test_the_model_is_served_under_the_name_of_its_directory(model: str, name: str) -> None:
    assert Settings(model=model).served_model_name == name
    assert Settings(model=model, model_name="other/id").served_model_name == "other/id"


def test_the_shipped_model_is_called_starter() -> None:
    assert Settings().served_model_name == "starter"


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
    ],
)
def test_loopback_addresses_are_known(host: str, is_loopback: bool) -> None:
    assert Settings(host=host).is_loopback is is_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "chat.example"])
def test_a_server_for_others_needs_keys_or_insecure(host: str) -> None:
    with pytest.raises(ConfigurationError, match=r"hash-key.*--api-keys-file.*--insecure"):
        cli.run({"host": host})


def test_a_refusal_is_one_line_and_exit_code_78() -> None:
    command = [sys.executable, "-m", "turnwise_server.cli", "--host", "0.0.0.0"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 78
    assert ended.stderr.startswith("turnwise-server: refusing to listen on 0.0.0.0 without API keys")
    assert ended.stderr.count("\n") == 1


def test_every_setting_but_secrets_is_a_flag() -> None:
    shown = runner.invoke(cli.app, ["--help"], terminal_width=200).stdout
    for field in Settings.model_fields:
        flag = "--" + field.replace("_", "-")
        assert (f"{flag} " in shown) is (field != "api_keys"), flag
    assert "TURNWISE_DEFAULT_MAX_TOKENS" in shown


@pytest.mark.parametrize("flag", ["--api-keys", "--api-key"])
def test_keys_cannot_be_given_on_the_command_line(flag: str) -> None:
    assert runner.invoke(cli.app, [flag, "secret"]).exit_code == 2


def test_the_version_is_printed() -> None:
    assert runner.invoke(cli.app, ["--version"]).stdout.strip() == __version__


def test_flags_reach_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}
    monkeypatch.setattr(cli, "run", given.update)
    arguments = [
        "--port",
        "0",
        "--drain-timeout-s",
        "1.5",
        "--insecure",
        "--model",
        "m",
        "--allowed-hosts",
        "a,b",
    ]
    assert runner.invoke(cli.app, arguments).exit_code == 0
    assert given == {
        "port": 0,
        "drain_timeout_s": 1.5,
        "insecure": True,
        "model": "m",
        "allowed_hosts": "a,b",
    }
    assert load_configuration(given).settings.allowed_hosts == ("a", "b")


def test_hash_key_hashes_the_key_it_is_sent() -> None:
    shown = runner.invoke(cli.app, ["hash-key", "--name", "ada"], input="a-key-of-twenty-chars\n")
    assert shown.exit_code == 0
    assert "a-key-of-twenty-chars" not in shown.output
    assert shown.stdout.endswith(" ada\n")


def test_hash_key_makes_a_key_whose_line_opens_the_server(tmp_path: Path) -> None:
    shown = runner.invoke(cli.app, ["hash-key"], input="")
    key = shown.stderr.strip().rpartition(" ")[2]
    file = tmp_path / "keys.txt"
    file.write_text(shown.stdout)
    assert KeyRing.load(file).find(key)
    assert key not in shown.stdout


def test_hash_key_refuses_a_key_that_could_be_guessed() -> None:
    refused = runner.invoke(cli.app, ["hash-key"], input="hunter2\n")
    assert isinstance(refused.exception, ConfigurationError)
    assert "hunter2" not in refused.output
