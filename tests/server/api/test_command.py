"""The `turnwise-server` command and its settings."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from turnwise_server import __version__, cli
from turnwise_server.auth import KeyRing
from turnwise_server.config import SECRET_FIELDS, Settings
from turnwise_server.errors import ConfigurationError

runner = CliRunner()


pytestmark = pytest.mark.usefixtures("clean_environment")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1


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
        assert (f"{flag} " in shown) is (field not in SECRET_FIELDS), flag
    assert "TURNWISE_DEFAULT_MAX_TOKENS" in shown


@pytest.mark.parametrize("flag", ["--api-keys", "--api-key"])
def test_keys_cannot_be_given_on_the_command_line(flag: str) -> None:
    assert runner.invoke(cli.app, [flag, "secret"]).exit_code == 2


def test_the_version_is_printed() -> None:
    assert runner.invoke(cli.app, ["--version"]).stdout.strip() == __version__


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings of the servers that the command started."""
    settings: list[Settings] = []
    monkeypatch.setattr(cli, "run", settings.append)
    return settings


def test_flags_reach_the_settings(started: list[Settings]) -> None:
    numbers = ["--port", "0", "--drain-timeout-s", "1.5"]
    others = ["--insecure", "--model", "m", "--allowed-hosts", "a,b"]
    assert runner.invoke(cli.app, [*numbers, *others]).exit_code == 0
    assert started == [
        Settings(port=0, drain_timeout_s=1.5, insecure=True, model="m", allowed_hosts=("a", "b"))
    ]


def test_flags_go_before_the_file(started: list[Settings], tmp_path: Path) -> None:
    file = tmp_path / "turnwise.toml"
    file.write_text("port = 1\ninsecure = true\nmax_batch = 1\n")
    runner.invoke(cli.app, ["--config", str(file), "--port", "2", "--no-insecure"])
    assert started == [Settings(port=2, insecure=False, max_batch=1)]


def test_print_config_prints_what_config_takes_and_starts_nothing(
    started: list[Settings], tmp_path: Path
) -> None:
    printed = runner.invoke(cli.app, ["--port", "1", "--print-config"])
    file = tmp_path / "turnwise.toml"
    file.write_text(printed.stdout)
    assert (printed.exit_code, started) == (0, [])
    runner.invoke(cli.app, ["--config", str(file)])
    assert started == [Settings(port=1)]


def test_check_config_says_ok_and_takes_no_address(started: list[Settings]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        arguments = ["--engine", "fake", "--port", str(other.getsockname()[1]), "--check-config"]
        checked = runner.invoke(cli.app, arguments)
    assert (checked.exit_code, checked.stdout, started) == (0, "ok\n", [])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "refusing to listen on 0.0.0.0 without API keys"),
        (["--config", "nowhere.toml"], "cannot read the configuration file 'nowhere.toml'"),
        (["--print-config", "--check-config", "--api-keys-file", "nowhere"], "cannot read the key file"),
    ],
)
def test_a_configuration_that_fails_the_check_is_one_line_and_exit_code_78(
    arguments: list[str], said: str
) -> None:
    command = [sys.executable, "-m", "turnwise_server.cli", "--check-config", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (78, "")
    assert ended.stderr.startswith(f"turnwise-server: {said}")
    assert ended.stderr.count("\n") == 1


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
