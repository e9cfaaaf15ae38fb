"""Where the server keeps its files when nobody says otherwise. It makes nothing."""

from __future__ import annotations

from pathlib import Path

import platformdirs


def data_directory() -> Path:
    """Return the server's directory, on Linux below `XDG_DATA_HOME` or `~/.local/share`."""
    return platformdirs.user_data_path("turnwise")
