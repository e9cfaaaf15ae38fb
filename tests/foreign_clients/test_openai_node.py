"""The openai Node SDK, on everything that it and this server know."""

import pytest

from support.foreign_suites import ForeignClients, tell


def test_openai_node(node_clients: ForeignClients, subtests: pytest.Subtests) -> None:
    tell(node_clients.node_suite("openai_node.test.mjs"), subtests)
