"""The Vercel ai-sdk, with its OpenAI-compatible provider and with OpenAI's on chat and on responses."""

import pytest

from support.foreign_suites import ForeignClients, tell


def test_ai_sdk(node_clients: ForeignClients, subtests: pytest.Subtests) -> None:
    tell(node_clients.node_suite("ai_sdk.test.mjs"), subtests)
