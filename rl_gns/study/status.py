"""`rl-gns status`: how runs stand, read from their directories alone. It takes no lock and writes nothing."""

from __future__ import annotations

import difflib
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rl_gns.config import ConfigError, RunConfig
from rl_gns.on_disk import DAMAGE, checked_record, parse_json
from rl_gns.records import UpdateRecord
from rl_gns.rundir import RunDir
from rl_gns.study.progress import RATE_SECONDS, Progress

TAIL_BYTES = 1 << 20
"""Of metrics.jsonl at most so much is read: some 300 records, a minute of all but the fastest runs."""
DEPTH = 4
"""Runs are looked for so many folders down: runs/quickstart/cartpole/B64-lr0.002-s0-1a2b3c4d is 3 below runs."""

State = Literal["running", "finished", "stopped", "damaged"]


@dataclass(frozen=True)
class RunStatus:
    """One run as its directory shows it; None is what is not known (yet)."""

    name: str
    path: Path
    state: State
    reason: str
    """finished: `goal` or `budget`. stopped: what to do. damaged: what is wrong. running: empty, or `starting`."""
    config: RunConfig | None = None
    progress: Progress | None = None
    seconds_since_write: float | None = None
    """Since metrics.jsonl grew, by the clock of this machine; before the first record: since the run was set up."""


def survey(directories: Sequence[Path]) -> list[RunStatus]:
    """Every run in or below the directories, once each. A directory that has gone holds none."""
    found: dict[Path, str] = {}
    for directory in directories:
        for path in runs_under(directory):
            relative = len(directories) == 1 and path != directory
            found.setdefault(path.resolve(), str(path.relative_to(directory) if relative else path))
    return [look(path, name) for path, name in found.items()]


def check_directories(directories: Sequence[Path]) -> None:
    """ConfigError for the first that does not exist, naming the nearest that does."""
    for path in directories:
        if path.is_dir():
            continue
        if path.exists():
            raise ConfigError(f"{path}: a file; a directory of runs is wanted, such as {path.parent}")
        raise ConfigError(f"{path}: no such directory{_nearest(path)}")


def _nearest(path: Path) -> str:
    home = path.parent
    if not home.is_dir():
        return _nearest(home)
    siblings = [p.name for p in home.iterdir() if p.is_dir() and not p.name.startswith(".")]
    near = difflib.get_close_matches(path.name, siblings, n=1, cutoff=0.5)
    return f"; the nearest is {home / near[0] if near else home}"


def runs_under(directory: Path, depth: int = DEPTH) -> list[Path]:
    """The directory itself where it is a run's, else the runs below it: B64 before B256."""
    if any((directory / name).exists() for name in ("config.toml", "metrics.jsonl", ".lock")):
        return [directory]
    try:
        below = [p for p in directory.iterdir() if p.is_dir() and not p.name.startswith(".")]
    except FileNotFoundError:
        return []
    return [run for each in sorted(below, key=_in_order) for run in (runs_under(each, depth - 1) if depth else [])]


def _in_order(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def look(path: Path, name: str) -> RunStatus:
    """One run's directory, whatever state it is in."""
    run = RunDir(path)
    try:
        in_use, age = run.in_use(), _age(run)
        if not (path / "config.toml").exists() and not run.metrics.exists():
            return _begun(name, path, in_use)
        config = run.config()
        progress = Progress(config.total_env_steps)
        for record in newest_records(run.metrics):
            progress.add(record)
        progress.words(), progress.faults()  # what is shown can be told
        return RunStatus(name, path, *_state(run, config, in_use), config, progress, age)
    except (ConfigError, OSError) as error:
        return RunStatus(name, path, "damaged", " ".join(str(error).replace(f"{path}/", "").split()))
    except DAMAGE as error:
        return RunStatus(name, path, "damaged", f"metrics.jsonl: not a run's records ({error!r})")


def _begun(name: str, path: Path, in_use: bool) -> RunStatus:
    if in_use:
        return RunStatus(name, path, "running", "starting")
    return RunStatus(name, path, "stopped", "before it began; run the same command again")


def _state(run: RunDir, config: RunConfig, in_use: bool) -> tuple[State, str]:
    if in_use:
        return "running", "" if run.metrics.exists() else "starting"
    result = run.read_result()
    if isinstance(result, dict):  # a run that goes on to a larger budget was finished, and is not
        by, env_steps = result.get("stopped"), result.get("env_steps") or 0
        if by == "goal" or env_steps >= config.total_env_steps:
            return "finished", str(by)
    return "stopped", "run the same command again"


def _age(run: RunDir) -> float | None:
    for path in (run.metrics, run.path / "config.toml"):
        if path.exists():
            return max(0.0, time.time() - path.stat().st_mtime)
    return None


def newest_records(path: Path) -> list[dict[str, Any]]:
    """The last records of a metrics.jsonl, oldest first: enough for a minute's rate and the noise scale, from the
    last MiB alone. A last line that is still being written is left out; ConfigError where a whole one is damaged."""
    if not path.exists():
        return []
    with open(path, "rb") as file:
        start = max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES)
        file.seek(start)
        lines = file.read().split(b"\n")[1 if start else 0 : -1]
    records: list[dict[str, Any]] = []
    seconds, noise = 0.0, None
    while lines and (seconds < RATE_SECONDS or not noise):
        try:
            records.append(checked_record(parse_json(lines.pop()), UpdateRecord))
        except DAMAGE as error:
            raise ConfigError(f"{path.name}: damaged ({error})") from None
        seconds, noise = seconds + records[-1]["seconds"], noise or records[-1]["noise"]
    return records[::-1]


def facts(status: RunStatus) -> dict[str, Any]:
    """One run for programs: units in the names, null for what is not known; to_json makes it plain.

    Of `faults`, skipped_steps counts from the beginning, the others since faults_since_env_steps. `control_channel`
    says what it read wrong, null where it did not.
    """
    config, progress, running = status.config, status.progress, status.state == "running"
    last = (progress.last or {}) if progress else {}
    known = ("env_steps", "optimizer_steps", "return_mean", "batch_size")
    return {
        "name": status.name,
        "path": str(status.path),
        "state": status.state,
        "reason": status.reason or None,
        "env": config and config.env,
        "seed": config and config.seed,
        "total_env_steps": config and config.total_env_steps,
        **{name: last.get(name) for name in known},
        "noise": progress and progress.noise,
        "env_steps_per_second": progress and progress.env_steps_per_second(),
        "seconds_left": progress.seconds_left() if progress and running else None,
        "seconds_since_write": status.seconds_since_write,
        "faults": progress.faults() if progress else {},
        "faults_since_env_steps": progress and progress.since_env_steps,
        "control_channel": progress.control_words().get("control channel") if progress else None,
    }
