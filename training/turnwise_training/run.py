"""Runs: atomic step checkpoints, exact resume and the log. It knows nothing of models."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from turnwise_training.config import TrackerName
from turnwise_training.errors import RunError
from turnwise_training.parallel import Parallel
from turnwise_training.trackers import Tracker, open_trackers, send

MANIFEST = "MANIFEST.json"
STATE = "state.pt"
KEPT_STEPS = 2


def refuse_finished(marker: Path, *, force: bool) -> None:
    """Raise RunError if `marker` shows that a stage has finished there, unless `force`."""
    if marker.exists() and not force:
        raise RunError(
            f"{marker.parent} holds a finished result; pass --force to replace it or choose another output"
        )


class Run:
    """One run's folder: config.json, log.jsonl and steps/00000120/ (state.pt, MANIFEST.json).

    A step is written beside its place, synced, and renamed once its manifest is whole, so that a process killed
    at any moment leaves the newest whole step to go on from. Of several processes the first one writes.
    """

    def __init__(
        self, folder: Path, config: object, parallel: Parallel, *, track: Sequence[TrackerName] = ()
    ) -> None:
        """Open a run, new or begun; raises RunError if it was begun with another configuration."""
        self.folder = folder
        self._parallel = parallel
        self._steps = folder / "steps"
        self._log = folder / "log.jsonl"
        self._trackers: list[Tracker] = open_trackers(track, folder, config) if parallel.is_main else []
        parallel.on_main(lambda: self._open(config))

    def _open(self, config: object) -> None:
        try:
            self._prepare(config)
        except OSError as error:
            raise RunError(
                f"{self.folder} cannot be written ({error}); free disk space or change `runs`"
            ) from error

    def _prepare(self, config: object) -> None:
        self._steps.mkdir(parents=True, exist_ok=True)
        for torn in self._steps.glob(".tmp-*"):
            shutil.rmtree(torn)
        self._check_config(config)
        self._log.touch()

    def _check_config(self, config: object) -> None:
        path = self.folder / "config.json"
        text = json.dumps(config, indent=2) + "\n"
        if not path.exists():
            write_durably(path, text.encode())
        elif path.read_text() != text:
            raise RunError(
                f"{path} was written by another configuration; give this run another name or remove {self.folder}"
            )

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state after `step` steps; raises RunError, with older steps kept, if the disk is full."""
        whole = {**self._parallel.whole(state), "torch_rng": self._parallel.gather(torch.get_rng_state())}
        if torch.cuda.is_available():
            whole["cuda_rng"] = self._parallel.gather(torch.cuda.get_rng_state())
        self._parallel.on_main(lambda: self._save(step, whole))

    def _save(self, step: int, state: dict[str, Any]) -> None:
        try:
            self._write(step, state)
        except (OSError, RuntimeError) as error:
            raise RunError(
                f"step {step} could not be saved ({error}); earlier steps are kept: free disk space and run again"
            ) from error

    def _write(self, step: int, state: dict[str, Any]) -> None:
        """Write one step beside its place and rename it there when it is whole."""
        state = {**state, "step": step, "log_bytes": self._log.stat().st_size}
        unfinished = self._steps / f".tmp-{step:08d}"
        try:
            self._require_space()
            unfinished.mkdir()
            with (unfinished / STATE).open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            size = (unfinished / STATE).stat().st_size
            files = {STATE: {"bytes": size, "sha256": file_sha256(unfinished / STATE)}}
            write_durably(unfinished / MANIFEST, json.dumps({"step": step, "files": files}).encode())
            # Only a damaged step that `load` passed over can stand here already.
            shutil.rmtree(self._steps / f"{step:08d}", ignore_errors=True)
            unfinished.rename(self._steps / f"{step:08d}")
            _sync_folder(self._steps)
        except (OSError, RuntimeError):
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        for old in sorted(self._steps.glob("[0-9]*"))[:-KEPT_STEPS]:
            shutil.rmtree(old)

    def _require_space(self) -> None:
        newest = max(self._steps.glob(f"[0-9]*/{STATE}"), default=None)
        needed = newest.stat().st_size if newest else 0
        free = shutil.disk_usage(self._steps).free
        if free < 1.1 * needed:
            raise OSError(f"{needed / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free")

    def load(self) -> dict[str, Any] | None:
        """Return the newest whole state and cut the log back to it, or None for a new run."""
        state = self._newest_whole()
        if self._parallel.is_main:
            os.truncate(self._log, state["log_bytes"] if state else 0)
        if state is not None:
            # A run that goes on with more processes than it had gives the new ones their own numbers anyway.
            rank = min(self._parallel.rank, len(state["torch_rng"]) - 1)
            torch.set_rng_state(state["torch_rng"][rank])
            if torch.cuda.is_available() and "cuda_rng" in state:
                torch.cuda.set_rng_state(state["cuda_rng"][rank])
        self._parallel.wait()
        return state

    def _newest_whole(self) -> dict[str, Any] | None:
        for step in sorted(self._steps.glob("[0-9]*"), reverse=True):
            if _is_whole(step):
                state: dict[str, Any] = torch.load(step / STATE, weights_only=True, map_location="cpu")
                return state
            sys.stderr.write(f"{step} is damaged; trying the step before it\n")
        return None

    def last_line(self) -> dict[str, Any]:
        """Return the newest line of the log; nothing where there is none, or where another process writes it."""
        lines = self._log.read_text().splitlines() if self._parallel.is_main else []
        return json.loads(lines[-1]) if lines else {}

    def log(self, line: dict[str, object]) -> None:
        """Append one line to log.jsonl; it holds nothing that differs between equal runs, such as times."""
        if self._parallel.is_main:
            try:
                with self._log.open("a") as file:
                    file.write(json.dumps(line) + "\n")
            except OSError as error:
                raise RunError(
                    f"{self._log} could not be written ({error}); saved steps are kept: free disk space and run again"
                ) from error
            send(self._trackers, line)


def _is_whole(step: Path) -> bool:
    try:
        files = json.loads((step / MANIFEST).read_text())["files"]
    except (OSError, ValueError, KeyError):
        return False
    return all(
        (step / name).is_file()
        and (step / name).stat().st_size == facts["bytes"]
        and file_sha256(step / name) == facts["sha256"]
        for name, facts in files.items()
    )


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_digest(folder: Path) -> str:
    """Return the SHA-256 of a model directory's weights; of several files, that of their digests in order."""
    digests = [file_sha256(path) for path in sorted(folder.glob("*.safetensors"))]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def write_durably(path: Path, content: bytes) -> None:
    """Write a file so that it is whole or absent after a crash."""
    unfinished = path.with_name(f".tmp-{path.name}")
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
