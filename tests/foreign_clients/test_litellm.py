"""litellm, on chat completions, completions and responses."""

import pytest

from support.foreign_suites import ForeignClients, tell


def test_litellm(python_clients: ForeignClients, subtests: pytest.Subtests) -> None:
    tell(python_clients.python_suite("litellm_suite.py"), subtests)
