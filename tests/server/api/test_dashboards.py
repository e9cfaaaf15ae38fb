"""What `deploy/` offers for Prometheus and Grafana asks for figures that exist, and the compose file uses it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from turnwise_server.api.supervision import Interruption
from turnwise_server.api.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
DOCUMENT = (ROOT / "docs/operations.md").read_text(encoding="utf-8")


def read(file: str) -> Any:
    return yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))


def expressions() -> list[str]:
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
    shown = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = [rule["expr"] for group in read("deploy/alerts.yml")["groups"] for rule in group["rules"]]
    return shown + rules


def known_series() -> set[str]:
    types = re.findall(r"^# TYPE (\w+) (\w+)$", Metrics().exposition({}).decode(), re.MULTILINE)
    return {
        name + suffix
        for name, kind in types
        for suffix in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",))
    }


@pytest.mark.parametrize("expression", expressions())
def test_every_figure_that_is_shown_or_watched_exists(expression: str) -> None:
    used = set(re.findall(r"(?:turnwise|process)_\w+(?=[{\[ )]|$)", expression))
    assert used <= known_series()
    assert used or "up{" in expression


def test_every_metric_of_the_server_is_on_the_dashboard() -> None:
    shown = " ".join(expressions())
    documented = re.findall(r"^\| `(turnwise_\w+)` ", DOCUMENT, re.MULTILINE)
    assert [name for name in documented if name not in shown] == []


def test_every_reason_of_a_cancellation_is_documented() -> None:
    assert all(f"`{reason.value}`" in DOCUMENT for reason in Interruption)


def test_the_compose_file_mounts_what_prometheus_reads_and_gives_it_a_key() -> None:
    compose = read("docker-compose.yml")
    prometheus = compose["services"]["prometheus"]
    assert prometheus["profiles"] == ["metrics"], "off unless it is asked for"
    assert all(port.startswith("127.0.0.1:") for port in prometheus["ports"])
    sources = [volume.split(":")[0] for volume in prometheus["volumes"]]
    for source in sources:
        assert (ROOT / source).is_file() or source in compose["volumes"], source
    config = read("deploy/prometheus.yml")
    assert config["rule_files"] == ["alerts.yml"]
    (job,) = config["scrape_configs"]
    secret = Path(job["authorization"]["credentials_file"])
    assert secret.parent == Path("/run/secrets")
    assert prometheus["secrets"] == [secret.name]
    assert secret.name in compose["secrets"]
    (target,) = job["static_configs"][0]["targets"]
    assert target.split(":")[0] in compose["services"]
