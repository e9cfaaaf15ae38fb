"""Files that were made to hurt a reader are refused quickly, by server and training alike."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from turnwise_server.chat.refusal.policy_file import load_policy
from turnwise_server.errors import PolicyError
from turnwise_training.errors import ConfigurationError
from turnwise_training.policy import read_policy

LAUGHS = b"a: &a [x, x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (n + 1, n + 1, n, n) for n in range(97, 121))
HOSTILE = {
    "nothing": b"",
    "a list": b"- 1\n",
    "a word": b"policy",
    "bytes": bytes(range(128, 256)),
    "zeros": b"\0" * 1000,
    "a billion laughs": LAUGHS,
    "deep nesting": b"[" * 200_000,
    "deep indentation": b"\n".join(b" " * depth + b"a:" for depth in range(600)),
    "a huge file": b"version: 1\n" + b"#" * 10_000_000,
    "many keys": b"".join(b"k%d: 1\n" % number for number in range(2_000)),
    "a huge number": b"version: " + b"9" * 100_000,
    "python": b"!!python/object/apply:os.system ['true']",
    "a list as key": b"? [a]\n: 1",
    "an endless quote": b"name: '" + b"x" * 100_000,
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("read", [load_policy, read_policy], ids=["server", "training"])
def test_a_hostile_file_is_refused_quickly(
    read: Callable[[Path], object], content: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_bytes(content)
    began = time.process_time()
    with pytest.raises((PolicyError, ConfigurationError), match=r"policy\.yaml:\d+:"):
        read(file)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("read", [load_policy, read_policy], ids=["server", "training"])
def test_what_is_no_file_is_refused(read: Callable[[Path], object], tmp_path: Path) -> None:
    for file in (tmp_path, tmp_path / "none.yaml"):
        with pytest.raises((PolicyError, ConfigurationError), match="cannot read the policy"):
            read(file)
