"""The TOML file: what is wrong with it is said with its name and the line."""

from pathlib import Path

import pytest

from turnwise_server.config_file import read_config_file
from turnwise_server.config_sources import load_configuration
from turnwise_server.errors import ConfigurationError

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "turnwise.toml"


def refusal(file: Path, content: str | bytes, mode: int = 0o600) -> str:
    """Return what is said about a file, after its folder."""
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    file.chmod(mode)
    with pytest.raises(ConfigurationError) as refused:
        load_configuration({}, file)
    return str(refused.value).replace(f"{file.parent}/", "")


def test_values_may_have_the_types_of_toml_or_be_text_as_in_variables(file: Path) -> None:
    file.write_text(
        'port = 9000\nmax_batch = "7"\ninsecure = true\nping_interval_s = 2\n'
        'allowed_hosts = ["a.example", "b.example"]\ncors_allowed_origins = "https://a.example,https://b.example"\n'
        'fake_script = "script.json"\n',
        encoding="utf-8",
    )
    settings = load_configuration({}, file).settings
    assert (settings.port, settings.max_batch, settings.insecure, settings.ping_interval_s) == (
        9000,
        7,
        True,
        2,
    )
    assert settings.allowed_hosts == ("a.example", "b.example")
    assert settings.cors_allowed_origins == ("https://a.example", "https://b.example")
    assert settings.fake_script == Path("script.json")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("# ours\n\nprot = 1\n", "there is no setting prot (turnwise.toml:3): did you mean port?"),
        ("max-batch = 1\n", "there is no setting max-batch (turnwise.toml:1): did you mean max_batch?"),
        (
            "port = 1\n[server]\nport = 2\n",
            "there is no setting server (turnwise.toml:2): `turnwise-server --help` lists them all",
        ),
        (
            "engine.kind = 'torch'\n",
            "engine (turnwise.toml:1) is not valid: Input should be 'torch' or 'fake'",
        ),
        ("\nmodel_name = 5\n", "model_name (turnwise.toml:2) is not valid: Input should be a valid string"),
        (
            "port = 70000\n",
            "port (turnwise.toml:1) is not valid: Input should be less than or equal to 65535",
        ),
        ("host = 1979-05-27\n", "host (turnwise.toml:1) is not valid: Input should be a valid string"),
        (
            "[models]\na = 'b'\nx = 5\n",
            "models.x (turnwise.toml:1) is not valid: Input should be a valid string",
        ),
        ("threads = true\n", "threads (turnwise.toml:1) is not a switch: it cannot be true or false"),
    ],
)
def test_what_cannot_be_taken_is_named_with_its_line(file: Path, content: str, said: str) -> None:
    assert refusal(file, content) == said


@pytest.mark.parametrize(
    ("content", "place"),
    [("port = 1\nhost = oops\n", "(at line 2, column 8)"), ("port = 1\nport = 2\n", "line 2")],
)
def test_a_fault_of_the_syntax_is_named_with_line_and_column(file: Path, content: str, place: str) -> None:
    said = refusal(file, content)
    assert said.startswith("the configuration file 'turnwise.toml' is not TOML: ")
    assert place in said


def test_a_file_that_is_not_there_or_no_text_is_named(file: Path) -> None:
    assert "'turnwise.toml' is not UTF-8" in refusal(file, b"\xff\xfe")
    file.unlink()
    for unreadable, reason in ((file, "No such file"), (file.parent, "Is a directory")):
        with pytest.raises(ConfigurationError, match=f"^cannot read the configuration file .*{reason}"):
            load_configuration({}, unreadable)


def test_secrets_may_stand_in_a_file_that_not_everybody_can_read(file: Path) -> None:
    said = refusal(file, 'port = 1\napi_keys = ["canary"]\n', mode=0o644)
    assert said == (
        "every user of this machine can read the secret api_keys (turnwise.toml:2): "
        "run `chmod o-r turnwise.toml`, or give it by the environment"
    )
    file.chmod(0o640)
    assert [key.get_secret_value() for key in load_configuration({}, file).settings.api_keys] == ["canary"]


def test_lines_are_found_however_keys_are_written(file: Path) -> None:
    file.write_text('# port = 1\n"port" = 1\n  host="h"\n[ models ]\na = "b"\n')
    assert {key: entry.place.rpartition(":")[2] for key, entry in read_config_file(file).items()} == {
        "port": "2",
        "host": "3",
        "models": "4",
    }
