"""Flags go before the environment, that before the file; what no setting knows stops the server."""

import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from turnwise_server import config_sources
from turnwise_server.config import SECRET_FIELDS, Settings
from turnwise_server.config_sources import load_configuration
from turnwise_server.config_types import holds_secret
from turnwise_server.errors import ConfigurationError

pytestmark = pytest.mark.usefixtures("clean_environment")
ROOT = Path(__file__).parents[2]


def write(file: Path, text: str) -> Path:
    file.write_text(text, encoding="utf-8")
    file.chmod(0o600)
    return file


def test_a_flag_goes_before_the_environment_that_before_the_file_and_that_before_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = write(tmp_path / "t.toml", "port = 1\nmax_batch = 1\nmax_messages = 1\n")
    monkeypatch.setenv("TURNWISE_PORT", "2")
    monkeypatch.setenv("TURNWISE_MAX_BATCH", "2")
    monkeypatch.setenv("TURNWISE_MAX_MESSAGES", "")
    configuration = load_configuration({"port": 3}, file)
    settings = configuration.settings
    assert (settings.port, settings.max_batch, settings.max_messages) == (3, 2, 1)
    assert settings.prefill_chunk == 512
    assert configuration.places == {
        "port": "--port",
        "max_batch": "TURNWISE_MAX_BATCH",
        "max_messages": f"{file}:3",
    }


def test_the_file_is_named_by_a_flag_or_else_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TURNWISE_CONFIG", str(write(tmp_path / "a.toml", "port = 1\n")))
    assert load_configuration({}).settings.port == 1
    assert load_configuration({}, write(tmp_path / "b.toml", "port = 2\n")).settings.port == 2
    monkeypatch.setenv("TURNWISE_CONFIG", "")
    assert load_configuration({}).settings.port == 8000


def test_no_file_is_read_that_nobody_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(tmp_path / "turnwise.toml", "port = 1\n")
    monkeypatch.chdir(tmp_path)
    assert load_configuration({}).settings.port == 8000


@pytest.mark.parametrize(
    ("variable", "remedy"),
    [
        ("TURNWISE_MAX_BACH", "did you mean TURNWISE_MAX_BATCH?"),
        ("turnwise_prot", "did you mean TURNWISE_PORT?"),
        ("TURNWISE_ZZZ", "`turnwise-server --help` lists them all"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest_known(
    monkeypatch: pytest.MonkeyPatch, variable: str, remedy: str
) -> None:
    monkeypatch.setenv(variable, "canary")
    with pytest.raises(ConfigurationError) as refused:
        load_configuration({})
    assert str(refused.value) == f"there is no setting {variable}: {remedy}"


def test_variables_of_other_programs_are_none_of_the_servers_business(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The client and the training share the prefix; Kubernetes sets links beside a service of our name."""
    others = {
        name
        for part in ("client", "training")
        for source in (ROOT / part).rglob("*.py")
        for name in re.findall(r"TURNWISE_[A-Z0-9_]+", source.read_text(encoding="utf-8"))
    }
    assert "TURNWISE_API_KEY" in others
    links = {
        "TURNWISE_SERVICE_HOST": "10.0.0.1",
        "TURNWISE_SERVICE_PORT_HTTP": "8000",
        "TURNWISE_SERVER_SERVICE_PORT": "8000",
        "TURNWISE_SERVER_PORT": "tcp://10.0.0.1:8000",
        "TURNWISE_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "TURNWISE_SERVER_PORT_8000_TCP_ADDR": "10.0.0.1",
    }
    for name, value in dict.fromkeys(others, "x").items() | links.items():
        monkeypatch.setenv(name, value)
    assert load_configuration({}).places == {}


@pytest.mark.parametrize("name", ["TURNWISE_SERVER_PORT", "TURNWISE_HTTP_PORT"])
def test_a_variable_that_only_looks_like_a_link_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "8000")
    with pytest.raises(ConfigurationError, match=name):
        load_configuration({})


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"port": 70_000}, "port (--port)"),
        ({"engine": "magic"}, "engine (--engine)"),
        ({"drain_timeout_s": float("nan")}, "drain_timeout_s (--drain-timeout-s)"),
        ({"model_name": ""}, "model_name (--model-name)"),
    ],
)
def test_a_value_that_is_not_valid_is_named_with_its_flag(flags: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_configuration(flags)
    assert str(refused.value).startswith(f"{named} is not valid: ")


def test_a_value_that_is_not_valid_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNWISE_MAX_BATCH", "many")
    with pytest.raises(
        ConfigurationError, match=r"^max_batch \(TURNWISE_MAX_BATCH\) is not valid: .*integer"
    ):
        load_configuration({})


@pytest.mark.parametrize(
    ("origin", "is_one"),
    [
        ("https://chat.example", True),
        ("http://127.0.0.1:5173", True),
        ("http://[::1]:5173", True),
        ("chrome-extension://abcdefghijklmnop", True),
        ("*", False),
        ("null", False),
        ("chat.example", False),
        ("https://chat.example/", False),
        ("https://chat.example/page", False),
        ("https://Chat.example", False),
        ("https://chat.example:443", False),
        ("http://chat.example:80", False),
        ("https://*.example", False),
        ("https://ada@chat.example", False),
        ("https://chat.example\nx: y", False),
    ],
)
def test_origins_are_written_as_browsers_send_them(origin: str, is_one: bool) -> None:
    if is_one:
        settings = load_configuration({"cors_allowed_origins": f"https://a.example, {origin}"}).settings
        assert settings.cors_allowed_origins == ("https://a.example", origin)
    else:
        with pytest.raises(ConfigurationError, match=r"such as https://chat\.example"):
            load_configuration({"cors_allowed_origins": f"https://a.example,{origin}"})


def test_lists_are_separated_by_commas_and_keys_stay_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNWISE_API_KEYS", "first-key, second-key,")
    monkeypatch.setenv("TURNWISE_ALLOWED_HOSTS", "a.example,b.example")
    settings = load_configuration({}).settings
    assert [key.get_secret_value() for key in settings.api_keys] == ["first-key", "second-key"]
    assert settings.allowed_hosts == ("a.example", "b.example")
    assert "first-key" not in repr(settings)


def test_a_secret_is_declared_by_its_type_alone() -> None:
    assert {"api_keys"} <= SECRET_FIELDS
    assert holds_secret(SecretStr | None)
    assert holds_secret(tuple[SecretStr, ...])
    assert not holds_secret(dict[str, str] | None)


def test_every_secret_can_stand_in_a_file_of_its_own() -> None:
    """`api_keys_file` is a setting, which takes hashes."""
    assert set(config_sources.SECRET_FILE_VARIABLES.values()) == SECRET_FIELDS - {"api_keys"}


@pytest.fixture
def secret_file_variable(monkeypatch: pytest.MonkeyPatch) -> str:
    """A variable of that kind, whatever secrets there are."""
    monkeypatch.setattr(config_sources, "SECRET_FILE_VARIABLES", {"TURNWISE_KEYS_FILE": "api_keys"})
    return "TURNWISE_KEYS_FILE"


def test_a_secret_is_read_from_the_file_that_its_variable_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secret_file_variable: str
) -> None:
    monkeypatch.setenv(secret_file_variable, str(write(tmp_path / "secret", "canary-key\n")))
    configuration = load_configuration({})
    assert [key.get_secret_value() for key in configuration.settings.api_keys] == ["canary-key"]
    assert configuration.places == {"api_keys": secret_file_variable}
    monkeypatch.setenv("TURNWISE_API_KEYS", "another")
    with pytest.raises(ConfigurationError, match="both set"):
        load_configuration({})


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "No such file"), (b" \n", "is empty"), (b"\xff", "not UTF-8")]
)
def test_a_secret_file_that_holds_none_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    secret_file_variable: str,
    content: bytes | None,
    reason: str,
) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    monkeypatch.setenv(secret_file_variable, str(tmp_path / "secret"))
    with pytest.raises(ConfigurationError, match=f"{secret_file_variable}.*{reason}"):
        load_configuration({})


@pytest.mark.parametrize("field", sorted(set(Settings.model_fields) - {"cors_allowed_origins"}))
def test_no_refusal_shows_a_value(monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    """Somebody may have pasted a secret into the wrong place. Origins are public."""
    monkeypatch.setenv(f"TURNWISE_{field.upper()}", "canary,=,")
    assert "canary" not in refusal()


def refusal() -> str:
    """Return what is said about the environment, nothing if all is well."""
    try:
        load_configuration({})
    except ConfigurationError as error:
        return str(error)
    return ""
