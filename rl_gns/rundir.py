"""A run directory: config.toml, provenance.json, metrics.jsonl, checkpoints/, result.json. No pickle, no half file.

Small files are written beside their place, synced and renamed. metrics.jsonl is appended, a whole line at a time, and
cut back to the checkpoint when a run goes on, so that each update stands in it exactly once.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from rl_gns.checkpoint import put_checkpoint, read_checkpoint, remove_checkpoint, write_checkpoint
from rl_gns.config import ConfigError, RunConfig, first_difference, identity
from rl_gns.config_file import load, to_toml
from rl_gns.config_rules import validate
from rl_gns.lock import is_held, take_lock
from rl_gns.on_disk import DAMAGE, check_follows, checked_record, parse_json
from rl_gns.records import UpdateRecord, to_json
from rl_gns.result import RunResult

KEEP_CHECKPOINTS = 2
"""The newest so many, and those that `checkpoint.keep` asks for."""
BAD_ROWS = "not_finite.safetensors"
"""The first minibatch whose gradient was not finite."""
TENSORBOARD = "tensorboard"
"""The folder of event files, for those who ask for them."""
OWN = ("config.toml", "provenance.json", "metrics.jsonl", "result.json", BAD_ROWS)
"""What the process that has the lock writes here, beside the checkpoints."""


class RunDir:
    """One run's files; the only writer is the process that holds its lock."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.metrics = self.path / "metrics.jsonl"
        self.result = self.path / "result.json"
        self._checkpoints = self.path / "checkpoints"
        self._config: RunConfig | None = None
        self._log: Any = None
        self._lock: Any = None

    def open(self, config: RunConfig) -> None:
        """Make the directory, or check that it holds the same experiment; ConfigError says what differs. config.toml
        is that of the sitting before, until one begins or the run is over.

        A directory that cannot be written is the user's mistake and named here, before anything is computed. So is one
        in the directory that Ray unpacks a job's upload into: it is thrown away, and another job would not find it.
        """
        if "\0" in str(self.path):
            raise ConfigError(f"--run-dir: {self.path}: no name of a file")
        if "working_dir_files" in self.path.absolute().parts:
            words = "is thrown away with the job; give an absolute one, or RL_GNS_RUNS"
            raise ConfigError(f"--run-dir: {self.path} {words}")
        try:
            if self.path.exists():
                self._check_config(config)  # before anything is made
            self._checkpoints.mkdir(parents=True, exist_ok=True)
            self._lock = take_lock(self.path / ".lock", self.path)
            self._check_config(config)  # another process may just have made it
            self._clear_drafts()
            self._config = config
            if not (self.path / "config.toml").exists():
                self._write_config()
        except OSError as error:
            raise ConfigError(f"--run-dir: {self.path}: {error.strerror}; give one that can be written") from None

    def note_sitting(self, provenance: dict[str, Any]) -> None:
        """It begins: add where its numbers come from to provenance.json, one entry a sitting, and write its config."""
        path = self.path / "provenance.json"
        sittings = read_json(path) if path.exists() else []
        if not isinstance(sittings, list):
            raise ConfigError(f"{path}: not the list of sittings that it should be; move it away to go on")
        with self._writing():
            self._write_config()
            write_json(path, [*sittings, provenance])

    def in_use(self) -> bool:
        """A live process holds the lock. Asking takes nothing, so that no run is turned away by being looked at."""
        return is_held(self.path / ".lock")

    def _check_config(self, config: RunConfig) -> None:
        if not (self.path / "config.toml").exists():
            ours = {"checkpoints", ".lock", TENSORBOARD, ".config.toml.tmp"}
            strangers = {p.name for p in self.path.iterdir()} - ours
            if self._checkpoints.exists():  # ours come after config.toml
                strangers |= {f"checkpoints/{p.name}" for p in self._checkpoints.iterdir()}
            if strangers:
                raise ConfigError(f"--run-dir: {self.path} holds something else ({min(strangers)}); give a new one")
            return
        if difference := first_difference(identity(self.config()), identity(config)):
            raise ConfigError(f"--run-dir: {self.path} holds another experiment ({difference}); give a new one")

    def _clear_drafts(self) -> None:
        """What a process that was killed had begun to write."""
        for name in OWN:
            _draft(self.path / name).unlink(missing_ok=True)
        for draft in self._checkpoints.glob(".*.tmp"):
            shutil.rmtree(draft)

    def _write_config(self) -> None:
        write_text(self.path / "config.toml", to_toml(self._config))

    def config(self) -> RunConfig:
        """The configuration of the run's last sitting."""
        if not (self.path / "config.toml").is_file():
            raise ConfigError(f"{self.path}: no run here (config.toml is missing)")
        config = load(self.path / "config.toml")
        try:
            return validate(config)
        except ConfigError as error:
            raise ConfigError(f"{self.path / 'config.toml'}: {error}") from None

    def append(self, record: UpdateRecord) -> None:
        """One line of metrics.jsonl, whole or not at all; ConfigError where the disk is full."""
        if self._log is None:
            self._log = open(self.metrics, "ab", buffering=0)  # noqa: SIM115 - held until close()
        line, start = (json.dumps(to_json(record), allow_nan=False) + "\n").encode(), self._log.tell()
        with self._writing():
            try:
                while line:
                    line = line[self._log.write(line) :]
            except OSError:
                os.ftruncate(self._log.fileno(), start)
                raise

    def records(self) -> Iterator[dict[str, Any]]:
        """metrics.jsonl, one dict an update; a last line that a crash cut short is left out. ConfigError where a whole
        line is no UpdateRecord, or does not follow from the one before."""
        if not self.metrics.exists():
            return
        before: dict[str, Any] | None = None
        with open(self.metrics, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.endswith(b"\n"):
                    try:
                        record = checked_record(parse_json(line), UpdateRecord)
                        check_follows(record, before)
                    except DAMAGE as error:
                        raise ConfigError(f"{self.metrics}: damaged (line {number}: {error})") from None
                    yield record
                    before = record

    def cut_back(self, updates: int) -> None:
        """Keep the first `updates` lines of metrics.jsonl, and no checkpoint beyond them: it would be taken for one of
        the newest two."""
        kept = [json.dumps(record, allow_nan=False) for record in self.records() if record["update"] < updates]
        if [json.loads(line)["update"] for line in kept] != list(range(updates)):
            words = f"its lines are not updates 0 to {updates - 1}, which the checkpoint needs"
            raise ConfigError(f"{self.metrics}: {words}")
        if self._log is not None:  # it is open on the file that is now replaced
            self._log.close()
            self._log = None
        stands_at = json.loads(kept[-1])["env_steps"] if kept else 0
        with self._writing():
            for beyond in [path for path in self.checkpoints() if int(path.name) > stands_at]:
                remove_checkpoint(beyond)
            write_text(self.metrics, "".join(line + "\n" for line in kept))

    def save_checkpoint(self, env_steps: int, state: dict[str, Any]) -> None:
        """Write `state` (nested dicts and lists of arrays and JSON values) as one folder; keep the last two."""
        if self._log is not None:
            os.fsync(self._log.fileno())  # a checkpoint is never newer than the lines that it stands on
        final = self._checkpoints / f"{env_steps:012d}"
        draft = self._checkpoints / f".{final.name}.tmp"
        with self._writing():
            try:
                write_checkpoint(draft, state)
                put_checkpoint(draft, final)
            except OSError:
                shutil.rmtree(draft, ignore_errors=True)
                raise
        there = self.checkpoints()
        for old in set(there[:-KEEP_CHECKPOINTS]) - self._for_good(there):
            remove_checkpoint(old)

    def _for_good(self, there: list[Path]) -> set[Path]:
        """Of each env step to keep, the first checkpoint that stands there or later."""
        keep = self._config.checkpoint.keep if self._config else ()
        later = [[path for path in there if int(path.name) >= kept] for kept in keep]
        return {paths[0] for paths in later if paths}

    def save_result(self, result: RunResult) -> None:
        """Written last: its presence means that the run finished."""
        with self._writing():
            self._write_config()
            write_json(self.result, result)

    def save_bad_rows(self, rows: dict[str, np.ndarray]) -> None:
        """As BAD_ROWS, once: the first are kept."""
        with self._writing():
            if not (self.path / BAD_ROWS).exists():
                write_bytes(self.path / BAD_ROWS, save({name: np.ascontiguousarray(a) for name, a in rows.items()}))

    def read_result(self) -> dict[str, Any] | None:
        """result.json, or None while the run has not finished; ConfigError where it is damaged."""
        if not self.result.exists():
            return None
        saved = read_json(self.result)
        try:
            return checked_record(saved, RunResult)
        except DAMAGE as error:
            raise ConfigError(f"{self.result}: damaged ({error}); run the same command again") from None

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """ConfigError where the disk is full, or refuses."""
        try:
            yield
        except OSError as error:
            raise ConfigError(
                f"--run-dir: {self.path}: {error.strerror}; make room or give another, and run again: it goes on from "
                "the last checkpoint"
            ) from None

    def checkpoints(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        if not self._checkpoints.is_dir():
            return []
        return sorted(p for p in self._checkpoints.iterdir() if re.fullmatch(r"\d{12}", p.name))

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The state of `newest_checkpoint`; None where there is none."""
        return (self.newest_checkpoint() or (None, None))[1]

    def newest_checkpoint(
        self, updates: int | None = None, among: Callable[[int], bool] = lambda env_steps: True
    ) -> tuple[Path, dict[str, Any]] | None:
        """(folder, state) of the newest, `among` those at such E, that reads back and, where `updates` is given, stands
        on so many lines or fewer of metrics.jsonl; None where there is none; ConfigError where none will do."""
        failures = []
        for path in reversed([p for p in self.checkpoints() if among(int(p.name))]):
            try:
                state = read_checkpoint(path)
                if updates is not None and state["counters"]["update"] > updates:
                    raise ValueError(f"it needs {state['counters']['update']} lines of metrics.jsonl")
                return path, state
            except (OSError, *DAMAGE) as error:
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


def read_json(path: Path) -> Any:
    """A JSON file of ours; ConfigError naming it where it is damaged."""
    try:
        return parse_json(path.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{path}: damaged ({error}); move it away to go on") from None


def write_json(path: Path, value: Any) -> None:
    """Records or plain values as JSON, atomically; NaN and infinities become null."""
    write_text(path, json.dumps(to_json(value), indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """`write_bytes` in UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write beside, sync, rename: a reader sees the old file or the new one, whole."""
    draft = _draft(path)
    try:
        with open(draft, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")
