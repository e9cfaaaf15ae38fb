"""--check-config finds what would stop a server, without loading weights or taking an address."""

import json
from pathlib import Path
from typing import Literal

import pytest
from pydantic import SecretStr

from support.fake_model import write_fake_model
from support.policies import policy_file
from support.tiny_checkpoints import write_tiny_checkpoint
from turnwise_server.check_config import check_access, check_models, check_policy, check_stores, check_traces
from turnwise_server.config import Settings
from turnwise_server.errors import ConfigurationError, PolicyError

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model directory without weights: enough for the fake engine."""
    return write_fake_model(tmp_path)


def refusal(settings: Settings) -> str:
    with pytest.raises(ConfigurationError) as refused:
        check_models(settings)
    return str(refused.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "chat.example"])
def test_a_server_for_others_needs_keys_or_insecure(host: str) -> None:
    with pytest.raises(ConfigurationError, match=r"hash-key.*--api-keys-file.*--insecure"):
        check_access(Settings(host=host))
    assert not check_access(Settings(host=host, insecure=True))
    assert check_access(Settings(host=host, api_keys="a-key-of-twenty-chars"))  # type: ignore[arg-type]  # as text


@pytest.mark.parametrize("field", ["database_url", "redis_url"])
def test_an_address_that_no_store_has_is_refused_and_not_shown(field: str) -> None:
    check_stores(
        Settings(database_url=SecretStr("sqlite:///kept.db"), redis_url=SecretStr("redis://localhost"))
    )
    with pytest.raises(ConfigurationError) as refused:
        check_stores(Settings(**{field: SecretStr("gopher://canary@example")}))  # type: ignore[arg-type]  # by name
    assert "canary" not in str(refused.value)
    assert field in str(refused.value).lower()
    assert not Path("kept.db").exists()


def test_traces_that_cannot_be_sent_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(otlp_endpoint="http://127.0.0.1:4317")
    check_traces(settings)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(ConfigurationError, match="http/protobuf"):
        check_traces(settings)


def test_a_policy_that_is_wrong_is_refused_with_its_line(tmp_path: Path) -> None:
    file = policy_file(tmp_path, {"version": 7})
    with pytest.raises(PolicyError, match=r"policy\.yaml:\d+"):
        check_policy(Settings(policy=file))


@pytest.mark.parametrize("kind", ["hf_sequence_classification", "hf_causal_guard"])
def test_a_detector_that_is_not_there_is_refused_unless_nothing_is_to_be_checked(
    kind: str, tmp_path: Path
) -> None:
    rule = {"id": "mine", "kind": kind, "path": str(tmp_path / "none")}
    file = policy_file(tmp_path, {"detectors": [rule]})
    with pytest.raises(ConfigurationError, match="detector 'mine'"):
        check_policy(Settings(policy=file))
    check_policy(Settings(policy=file, unsafe_no_classifier=True))


def test_the_shipped_policy_passes() -> None:
    check_policy(Settings())


@pytest.mark.parametrize("engine", ["torch", "fake"])
def test_the_shipped_model_passes_with_either_engine(engine: Literal["torch", "fake"]) -> None:
    assert check_models(Settings(engine=engine)) == []


def test_the_real_engine_needs_weights_which_are_not_read(tmp_path: Path, model: Path) -> None:
    assert "model.safetensors is missing" in refusal(Settings(model=str(model)))
    whole = str(write_tiny_checkpoint(tmp_path / "whole", context_length=128))
    assert check_models(Settings(model=whole, context_length=128)) == []
    assert "allows 128" in refusal(Settings(model=whole, context_length=256))


def test_a_damaged_tokenizer_template_or_setting_of_the_model_is_named(model: Path) -> None:
    fake = Settings(engine="fake", model=str(model))
    assert check_models(fake) == []
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": 1, "temperature": "warm"}))
    assert "generation_config.json" in refusal(fake)
    (model / "chat_template.jinja").write_text("{% if %}")
    assert "template" in refusal(fake)
    (model / "tokenizer.json").unlink()
    assert "tokenizer.json" in refusal(fake)


def test_every_model_is_checked(model: Path) -> None:
    settings = Settings(engine="fake", model=str(model), models={"other": str(model / "nowhere")})
    assert "nowhere" in refusal(settings)


def test_the_script_of_the_fake_engine_is_read(model: Path) -> None:
    script = model / "script.json"
    script.write_text('{"replies": []}')
    assert "script.json" in refusal(Settings(engine="fake", model=str(model), fake_script=script))


@pytest.mark.parametrize("device", ["tpu", "cuda:99"])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    assert repr(device) in refusal(Settings(device=device))


@pytest.mark.parametrize("model", ["nowhere", "./nowhere", "../nowhere/model", "/nowhere"])
def test_a_directory_that_is_not_there_is_refused(model: str) -> None:
    assert "nowhere" in refusal(Settings(model=model))


def test_a_name_that_may_be_on_the_hub_is_left_out_and_said() -> None:
    name = "some-organisation/some-model"
    assert check_models(Settings(model=name)) == [name]
    assert name in refusal(Settings(model=name, engine="fake"))
