"""Every example of docs/clients.md runs, against the starter model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.foreign_suites import ROOT, ForeignClients
from support.live_server import LiveServer

DOCUMENT = (ROOT / "docs" / "clients.md").read_text("utf-8")
SECTIONS = [section for section in re.split(r"^## ", DOCUMENT, flags=re.MULTILINE)[1:] if "```" in section]
COMMANDS = {
    "python": ["python", "-c"],
    "javascript": ["node", "--input-type=module", "-e"],
    "sh": ["/bin/sh", "-ec"],
}


def heading(section: str) -> str:
    return section.splitlines()[0]


@pytest.fixture
def clients(python_clients: ForeignClients, node_clients: ForeignClients) -> ForeignClients:
    return python_clients


@pytest.mark.parametrize("section", SECTIONS, ids=heading)
def test_an_example_is_answered(section: str, clients: ForeignClients, starter: LiveServer) -> None:
    examples = re.findall(r"^```(\w+)\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
    assert examples, "no example has the form of one"
    for language, text in examples:
        code = text.replace("http://127.0.0.1:8000", starter.url)
        if language == "yaml":
            (clients.folder / "extra-openai-models.yaml").write_text(code)
            continue
        ended = clients.run([*COMMANDS[language], code], LLM_USER_PATH=str(clients.folder))
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.strip()


def test_every_client_that_is_tested_has_an_example() -> None:
    suites = {path.stem for path in Path(__file__).parent.glob("test_*.py")} - {Path(__file__).stem}
    assert len(SECTIONS) == len(suites)
