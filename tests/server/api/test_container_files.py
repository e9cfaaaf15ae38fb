"""The container files fit the repository. They are not run here: that needs a container engine."""

import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from turnwise_server.config import ENV_PREFIX, Settings

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "server/Dockerfile").read_text().replace("\\\n", " ")
INSTRUCTIONS = [
    tuple(line.split(maxsplit=1)) for line in DOCKERFILE.splitlines() if line and not line.startswith("#")
]
IGNORED = (ROOT / ".dockerignore").read_text().splitlines()


def arguments(name: str) -> list[str]:
    return [argument for instruction, argument in INSTRUCTIONS if instruction == name]


def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return content


def test_everything_that_is_copied_exists_and_is_sent_to_the_builder() -> None:
    sources = [
        source
        for argument in arguments("COPY")
        if not argument.startswith("--from")
        for source in shlex.split(argument)[:-1]
    ]
    assert len(sources) >= 8
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source.rstrip('/')}" in IGNORED, source


def test_the_image_runs_without_privileges_and_tells_its_health() -> None:
    last_stage = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER 10001$", last_stage, re.MULTILINE)
    assert "--uid 10001 turnwise" in last_stage
    assert last_stage.index("USER 10001") < last_stage.index("ENTRYPOINT")
    assert "http://127.0.0.1:8000/health" in last_stage.partition("HEALTHCHECK")[2]


def test_no_secret_is_written_into_the_image() -> None:
    assert "API_KEY" not in DOCKERFILE


def test_compose_uses_the_dockerfile_a_declared_volume_and_known_settings() -> None:
    content = compose()
    server = content["services"]["server"]
    assert (ROOT / server["build"]["context"] / server["build"]["dockerfile"]).is_file()
    assert {volume.split(":")[0] for volume in server["volumes"]} <= set(content["volumes"])
    known = {f"{ENV_PREFIX}{field.upper()}" for field in Settings.model_fields}
    assert set(server["environment"]) <= known


def test_compose_needs_keys_and_gives_replies_time_to_finish() -> None:
    server = compose()["services"]["server"]
    assert ":?" in server["environment"]["TURNWISE_API_KEYS"]
    assert int(server["stop_grace_period"].rstrip("s")) > Settings().drain_timeout_s
    assert all(port.startswith("127.0.0.1:") for port in server["ports"])
