"""Tells the suites of the Python clients where the servers are; see conftest.py of the folder above."""

import os
import time
from dataclasses import dataclass
from json import load
from urllib.request import urlopen

import pytest


@dataclass(frozen=True)
class Server:
    """Addresses, each ending in /v1, and keys of the scripted one."""

    url: str = os.environ["TURNWISE_TEST_URL"]
    busy_url: str = os.environ["TURNWISE_TEST_BUSY_URL"]
    random_url: str = os.environ["TURNWISE_TEST_RANDOM_URL"]
    key: str = os.environ["TURNWISE_TEST_KEY"]
    limited_key: str = os.environ["TURNWISE_TEST_LIMITED_KEY"]

    def running(self) -> int:
        """How many replies the scripted server generates now."""
        with urlopen(self.url.removesuffix("/v1") + "/ready") as reply:
            return int(load(reply)["running"])

    def wait_until_idle(self, limit_s: float = 1.0) -> None:
        """Fail unless nothing runs within a second."""
        end = time.monotonic() + limit_s
        while self.running():
            assert time.monotonic() < end, f"a reply still runs after {limit_s} s"
            time.sleep(0.02)


@pytest.fixture
def server() -> Server:
    return Server()
