"""pydantic-ai, on chat completions and responses."""

import pytest

from support.foreign_suites import ForeignClients, tell


def test_pydantic_ai(python_clients: ForeignClients, subtests: pytest.Subtests) -> None:
    tell(python_clients.python_suite("pydantic_ai_suite.py"), subtests)
