"""Runs test suites that other test runners know how to run, and tells each of their results to pytest.

The clients of others live in an environment of their own, which `make test` sets up: they need other versions than
this project does, and two of them are no Python. Both runners write their results as JUnit's XML.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
FOREIGN = ROOT / "tests" / "foreign_clients"
BIN = ROOT / ".venv-clients" / "bin"
LIMIT_S = 300.0


@dataclass(frozen=True, slots=True)
class Case:
    """What became of one test of a suite."""

    name: str
    outcome: Literal["passed", "failed", "skipped"]
    text: str
    """Why it was skipped, or how it failed."""


@dataclass(frozen=True, slots=True)
class ForeignClients:
    """The environment with the clients of others, and what they must know of the servers."""

    environment: Mapping[str, str]
    folder: Path
    """Where results go; the programs have a home in it."""

    def run(
        self, command: Sequence[str], *, piped: str = "", **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, such as `["python", "-c", ...]`, with more environment variables."""
        return subprocess.run(
            [str(BIN / command[0]), *command[1:]],
            env={**self.environment, **more},
            cwd=FOREIGN,
            capture_output=True,
            text=True,
            input=piped,
            timeout=LIMIT_S,
            check=False,
        )

    def python_suite(self, name: str) -> list[Case]:
        """Run a file of pytest's in `suites/`."""
        results = self.folder / f"{name}.xml"
        options = ["-p", "no:cacheprovider", "-q", f"--junit-xml={results}"]
        return self._cases(["python", "-m", "pytest", *options, f"suites/{name}"], results)

    def node_suite(self, name: str) -> list[Case]:
        """Run a file of Node.js's test runner in `suites/`."""
        results = self.folder / f"{name}.xml"
        options = ["--test", "--test-reporter=junit", f"--test-reporter-destination={results}"]
        return self._cases(["node", *options, f"suites/{name}"], results)

    def _cases(self, command: Sequence[str], results: Path) -> list[Case]:
        ended = self.run(command)
        cases = read_junit(results) if results.is_file() else []
        if not cases or (ended.returncode and all(case.outcome != "failed" for case in cases)):
            pytest.fail(f"the suite did not run:\n{ended.stdout}\n{ended.stderr}", pytrace=False)
        return cases


def read_junit(file: Path) -> list[Case]:
    """Read the results that a test runner left."""
    return [_case(element) for element in ElementTree.parse(file).iter("testcase")]


def tell(cases: Sequence[Case], subtests: pytest.Subtests) -> None:
    """Let every case be a subtest of the test that runs."""
    for case in cases:
        with subtests.test(case.name):
            if case.outcome == "skipped":
                pytest.skip(case.text)
            if case.outcome == "failed":
                pytest.fail(f"{case.name}: {case.text}", pytrace=False)


def clients_environment(home: Path, **more: str) -> dict[str, str]:
    """Return an environment with nothing of the tester's but the language."""
    return {
        "PATH": f"{BIN}{os.pathsep}{os.defpath}",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        **more,
    }


def _case(element: ElementTree.Element) -> Case:
    name = element.attrib["name"]
    group = element.attrib.get("classname", "").rpartition(".")[2]
    if group.startswith("Test"):
        name = f"{group}::{name}"
    for child in element:
        said = f"{child.attrib.get('message', '')}\n{child.text or ''}".strip()
        if child.tag in ("failure", "error"):
            return Case(name, "failed", said)
        if child.tag == "skipped":
            return Case(name, "skipped", child.attrib.get("message", ""))
    return Case(name, "passed", "")
