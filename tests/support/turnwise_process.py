"""Run the `turnwise` command as its own process, with an environment that holds nothing of the tester's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

COMMAND = (sys.executable, "-c", "from turnwise_client.cli import main; main()")
TIMEOUT_S = 60


def environment(home: Path, **extra: str) -> Mapping[str, str]:
    """Return a clean environment whose home is `home`."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH", "LANG")}
    return {
        **kept,
        "HOME": str(home),
        "XDG_STATE_HOME": str(home / "state"),
        "TERM": "xterm-256color",
        "LC_ALL": "C.UTF-8",
        "PYTHONWARNINGS": "error",
        **extra,
    }


def turnwise(
    arguments: Sequence[str], *, home: Path, piped: str | bytes | None = None, **extra: str
) -> subprocess.CompletedProcess[bytes]:
    """Run `turnwise` with `piped` on its standard input; nothing there when None."""
    data = piped.encode() if isinstance(piped, str) else piped or b""
    return subprocess.run(
        [*COMMAND, *arguments],
        input=data,
        capture_output=True,
        timeout=TIMEOUT_S,
        env=environment(home, **extra),
    )
