"""langchain-openai, with the standard suite that LangChain asks of every chat model."""

import pytest

from support.foreign_suites import ForeignClients, tell


def test_langchain_openai(python_clients: ForeignClients, subtests: pytest.Subtests) -> None:
    tell(python_clients.python_suite("langchain_suite.py"), subtests)
