"""A run directory: config.toml, provenance.json, metrics.jsonl, checkpoints/, result.json. No pickle, no half file.

Small files are written beside their place, synced and renamed. metrics.jsonl is appended, a whole line at a time, and
cut back to the checkpoint when a run goes on, so that each update stands in it exactly once.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save, save_file

from rl_gns.config import ConfigError, RunConfig, first_difference, identity
from rl_gns.config_file import load, to_toml
from rl_gns.records import RunResult, UpdateRecord, to_json

KEEP_CHECKPOINTS = 2
"""The newest so many, and those that `checkpoint.keep` asks for."""
TENSORBOARD = "tensorboard"
"""The folder of event files, for those who ask for them."""
WRITE_LOCK = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
"""Linux's `struct flock` for a whole file. The lock belongs to the open file: it ends with the process that holds it,
however that ends, and others can ask for it without taking it."""


class RunDir:
    """One run's files; the only writer is the process that holds its lock."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.metrics = self.path / "metrics.jsonl"
        self.result = self.path / "result.json"
        self._checkpoints = self.path / "checkpoints"
        self._keep: tuple[int, ...] = ()
        self._log: Any = None
        self._lock: Any = None

    def open(self, config: RunConfig) -> None:
        """Make the directory, or check that it holds the same experiment; ConfigError says what differs.

        A directory that cannot be written is the user's mistake and named here, before anything is computed. So is one
        in the directory that Ray unpacks a job's upload into: it is thrown away, and another job would not find it.
        """
        if "working_dir_files" in self.path.absolute().parts:
            raise ConfigError(
                f"--run-dir: {self.path} is thrown away with the job; give an absolute one, or RL_GNS_RUNS"
            )
        try:
            self._checkpoints.mkdir(parents=True, exist_ok=True)
            self._lock = take_lock(self.path / ".lock", self.path)
            self._check_config(config)
            write_text(self.path / "config.toml", to_toml(config))
            self._keep = config.checkpoint.keep
        except OSError as error:
            raise ConfigError(f"--run-dir: {self.path}: {error.strerror}; give one that can be written") from None

    def note_sitting(self, provenance: dict[str, Any]) -> None:
        """Add where this sitting's numbers come from to provenance.json, one entry a sitting."""
        path = self.path / "provenance.json"
        sittings = read_json(path) if path.exists() else []
        if not isinstance(sittings, list):
            raise ConfigError(f"{path}: not the list of sittings that it should be; move it away to go on")
        write_json(path, [*sittings, provenance])

    def in_use(self) -> bool:
        """A live process holds the lock. Asking takes nothing, so that no run is turned away by being looked at."""
        try:
            with open(self.path / ".lock", "rb") as lock:
                answer = fcntl.fcntl(lock, fcntl.F_OFD_GETLK, WRITE_LOCK)
        except FileNotFoundError:
            return False
        return struct.unpack_from("h", answer)[0] != fcntl.F_UNLCK

    def _check_config(self, config: RunConfig) -> None:
        if not (self.path / "config.toml").exists():
            strangers = {p.name for p in self.path.iterdir()} - {"checkpoints", ".lock", TENSORBOARD}
            if strangers:
                raise ConfigError(f"--run-dir: {self.path} holds something else ({min(strangers)}); give a new one")
            return
        if difference := first_difference(identity(self.config()), identity(config)):
            raise ConfigError(f"--run-dir: {self.path} holds another experiment ({difference}); give a new one")

    def config(self) -> RunConfig:
        """The configuration that the run was started with."""
        if not (self.path / "config.toml").is_file():
            raise ConfigError(f"{self.path}: no run here (config.toml is missing)")
        return load(self.path / "config.toml")

    def append(self, record: UpdateRecord) -> None:
        """One line of metrics.jsonl, whole or not at all; ConfigError where the disk is full."""
        if self._log is None:
            self._log = open(self.metrics, "ab", buffering=0)  # noqa: SIM115 - held until close()
        line, start = (json.dumps(to_json(record), allow_nan=False) + "\n").encode(), self._log.tell()
        try:
            while line:
                line = line[self._log.write(line) :]
        except OSError as error:
            os.ftruncate(self._log.fileno(), start)
            raise self._unwritable(error) from None

    def records(self) -> Iterator[dict[str, Any]]:
        """metrics.jsonl, one dict an update; a last line that a crash cut short is left out."""
        if not self.metrics.exists():
            return
        with open(self.metrics, encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):
                    try:
                        yield json.loads(line)
                    except ValueError as error:
                        raise ConfigError(f"{self.metrics}: damaged ({error})") from None

    def cut_back(self, updates: int) -> None:
        """Keep the first `updates` lines of metrics.jsonl."""
        kept = [json.dumps(record, allow_nan=False) for record in self.records() if record["update"] < updates]
        if [json.loads(line)["update"] for line in kept] != list(range(updates)):
            raise ConfigError(
                f"{self.metrics}: its lines are not updates 0 to {updates - 1}, which the checkpoint needs"
            )
        if self._log is not None:  # it is open on the file that is now replaced
            self._log.close()
            self._log = None
        write_text(self.metrics, "".join(line + "\n" for line in kept))

    def save_checkpoint(self, env_steps: int, state: dict[str, Any]) -> None:
        """Write `state` (nested dicts and lists of arrays and JSON values) as one folder; keep the last two."""
        if self._log is not None:
            os.fsync(self._log.fileno())  # a checkpoint is never newer than the lines that it stands on
        final = self._checkpoints / f"{env_steps:012d}"
        draft = self._checkpoints / f".{final.name}.tmp"
        try:
            _write_checkpoint(draft, state)
            shutil.rmtree(final, ignore_errors=True)
            os.replace(draft, final)
            _sync(self._checkpoints)
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise self._unwritable(error) from None
        there = self.checkpoints()
        for old in set(there[:-KEEP_CHECKPOINTS]) - self._for_good(there):
            shutil.rmtree(old)

    def _for_good(self, there: list[Path]) -> set[Path]:
        """Of each env step to keep, the first checkpoint that stands there or later."""
        later = [[path for path in there if int(path.name) >= kept] for kept in self._keep]
        return {paths[0] for paths in later if paths}

    def save_result(self, result: RunResult) -> None:
        """Written last: its presence means that the run finished."""
        try:
            write_json(self.result, result)
        except OSError as error:
            raise self._unwritable(error) from None

    def read_result(self) -> dict[str, Any] | None:
        """result.json, or None while the run has not finished."""
        return read_json(self.result) if self.result.exists() else None

    def _unwritable(self, error: OSError) -> ConfigError:
        return ConfigError(
            f"--run-dir: {self.path}: {error.strerror}; make room or give another, and run again: it goes on from the "
            "last checkpoint"
        )

    def checkpoints(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        if not self._checkpoints.is_dir():
            return []
        return sorted(p for p in self._checkpoints.iterdir() if re.fullmatch(r"\d{12}", p.name))

    def load_checkpoint(self, updates: int | None = None) -> dict[str, Any] | None:
        """The newest checkpoint that reads back and, where `updates` is given, stands on at most so many lines of
        metrics.jsonl; None where there is none at all; ConfigError where none will do."""
        failures = []
        for path in reversed(self.checkpoints()):
            try:
                state = read_checkpoint(path)
                if updates is not None and state["counters"]["update"] > updates:
                    raise ValueError(f"it needs {state['counters']['update']} lines of metrics.jsonl")
                return state
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                failures.append(f"{path.name}: {error}")
        if failures:
            raise ConfigError(f"{self._checkpoints}: no checkpoint can be read ({'; '.join(failures)})")
        return None

    def close(self) -> None:
        """Close the log and give the lock back."""
        for handle in (self._log, self._lock):
            if handle is not None:
                handle.close()
        self._log = self._lock = None


def take_lock(file: Path, directory: Path) -> IO[str]:
    """The file that stands for `directory`, locked until it is closed; ConfigError where another process has it."""
    lock = open(file, "w")  # noqa: SIM115 - the caller's to close
    try:
        fcntl.fcntl(lock, fcntl.F_OFD_SETLK, WRITE_LOCK)
    except BlockingIOError:
        lock.close()
        raise ConfigError(f"--run-dir: {directory} is in use by another process of this machine") from None
    return lock


def _write_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    arrays: dict[str, np.ndarray] = {}
    plain = json.dumps(_split(state, "", arrays), allow_nan=False)
    for name, content in (("arrays.safetensors", save(arrays)), ("state.json", plain.encode())):
        with open(folder / name, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state that `save_checkpoint` wrote in that folder."""
    arrays = load_file(path / "arrays.safetensors")
    return _join(json.loads((path / "state.json").read_text(encoding="utf-8")), arrays)


def read_json(path: Path) -> Any:
    """A JSON file of ours; ConfigError naming it where it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: damaged ({error}); move it away to go on") from None


def write_json(path: Path, value: Any) -> None:
    """Records or plain values as JSON, atomically; NaN and infinities become null."""
    write_text(path, json.dumps(to_json(value), indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write beside, sync, rename: a reader sees the old file or the new one, whole."""
    draft = path.with_name(f".{path.name}.tmp")
    try:
        with open(draft, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Arrays as one safetensors file."""
    save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _split(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """The JSON skeleton of `value`; each array moves to `arrays` and leaves its name behind."""
    if isinstance(value, np.ndarray):
        arrays[name] = np.ascontiguousarray(value)
        return {"array": name, "shape": list(value.shape)}
    if isinstance(value, dict):
        return {"dict": {k: _split(v, f"{name}/{k}", arrays) for k, v in value.items()}}
    if isinstance(value, (list, tuple)):
        return {"list": [_split(v, f"{name}/{i}", arrays) for i, v in enumerate(value)]}
    return {"value": value.item() if isinstance(value, np.generic) else value}


def _join(node: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
    if "array" in node:
        return arrays[node["array"]].reshape(node["shape"])
    if "dict" in node:
        return {k: _join(v, arrays) for k, v in node["dict"].items()}
    if "list" in node:
        return [_join(v, arrays) for v in node["list"]]
    return node["value"]
