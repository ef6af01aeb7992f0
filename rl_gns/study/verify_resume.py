"""`rl-gns verify-resume`: is a run that was killed and went on the same, to the bit, as one that was not?

    unbroken:  train N + M env steps
    broken:    train in a process of its own, kill -9 behind the checkpoint at N, train on to N + M

Both have checkpoints at multiples of N. Compared are all records but their seconds, and everything in the last
checkpoint: weights, optimizer, statistics, pools, random streams, worlds.
"""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rl_gns.config import ConfigError, RunConfig
from rl_gns.config_file import to_toml
from rl_gns.rundir import RunDir, write_text
from rl_gns.study.build import checked
from rl_gns.study.train import train

LOOK_SECONDS = 0.01
LAST_WORDS = 3
"""Lines of a run that failed by itself, to be shown."""


@dataclass(frozen=True)
class Verdict:
    """What came of it."""

    identical: bool
    first_difference: str | None
    """`key: value unbroken, value broken` of the first that differs, records first; None where none does."""
    env_steps: int
    """E at the end of both."""
    checkpoint_env_steps: int
    """E at the checkpoint that the killed run went on from."""
    killed_at_env_steps: int
    """E that it had recorded when it was killed."""
    exact_resume: bool
    """Columns were seeded anew at checkpoints, in both runs."""
    world_saved: bool
    """The checkpoint holds the world itself."""


def verify_resume(
    config: RunConfig, first: int, then: int, path: Path, resume: Callable[[RunConfig, Path], Any] = train
) -> Verdict:
    """Both runs, in `path`/unbroken and `path`/broken, compared. ConfigError: the user's mistakes."""
    if first < 1 or then < 1:
        raise ConfigError(f"--first, --then: {min(first, then)} is too small; the least is 1")
    if config.rollout.inference_actors:
        words = "what is inferred together is chance, so no two runs are the same to the bit; 0 is needed"
        raise ConfigError(f"--rollout.inference-actors: {words}")
    both = checked(_with_checkpoints(config, first, first + then), several_learners=True)
    unbroken, broken = RunDir(path / "unbroken"), RunDir(path / "broken")
    for run in (unbroken, broken):
        if run.path.exists():
            raise ConfigError(f"--run-dir: {run.path} is there already; give a new directory")
    train(both, unbroken.path)
    _train_and_kill(both, broken.path)
    stood_at = broken.load_checkpoint()
    killed_at = list(broken.records())[-1]["env_steps"]
    resume(both, broken.path)
    difference = _first_difference(unbroken, broken)
    return Verdict(
        identical=difference is None,
        first_difference=difference,
        env_steps=list(unbroken.records())[-1]["env_steps"],
        checkpoint_env_steps=stood_at["counters"]["env_steps"],
        killed_at_env_steps=killed_at,
        exact_resume=both.checkpoint.exact_resume,
        world_saved=stood_at["source"] is not None,
    )


def _with_checkpoints(config: RunConfig, every: int, total: int) -> RunConfig:
    checkpoint = dataclasses.replace(config.checkpoint, every_env_steps=every)
    return dataclasses.replace(config, total_env_steps=total, stop_at_goal=False, checkpoint=checkpoint)


def _train_and_kill(config: RunConfig, path: Path) -> None:
    """kill -9, as soon as it has come further than its first checkpoint."""
    file = path.with_suffix(".toml")
    write_text(file, to_toml(config))
    command = [sys.executable, "-m", "rl_gns", "train", "--config", str(file), "--run-dir", str(path), "--json"]
    with tempfile.TemporaryFile() as said:  # no pipe, which would be full some day
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said) as process:
            try:
                while not _beyond_a_checkpoint(RunDir(path)) and process.poll() is None:
                    time.sleep(LOOK_SECONDS)
            finally:  # the end of `with` waits for it
                process.kill()
        said.seek(0)
        last = said.read().decode(errors="replace").strip().splitlines()[-LAST_WORDS:]
    if process.returncode == 0:
        raise ConfigError("--then: it ended before it could be killed; give more env steps")
    if process.returncode != -signal.SIGKILL or not _beyond_a_checkpoint(RunDir(path)):
        raise RuntimeError(f"the run that was to be killed failed by itself ({process.returncode}): {' '.join(last)}")


def _beyond_a_checkpoint(run: RunDir) -> bool:
    saved, last = run.checkpoints(), None
    for record in run.records() if saved else ():
        last = record["env_steps"]
    return last is not None and last > int(saved[0].name)


def _first_difference(unbroken: RunDir, broken: RunDir) -> str | None:
    there, here = list(unbroken.records()), list(broken.records())
    if found := first_unequal(_timeless(there), _timeless(here), "records"):
        return found
    return first_unequal(_timeless(unbroken.load_checkpoint()), _timeless(broken.load_checkpoint()), "checkpoint")


def _timeless(value: Any) -> Any:
    """Without the seconds of a clock, at any depth."""
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if not k.endswith("seconds")}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def first_unequal(there: Any, here: Any, key: str) -> str | None:
    """`key: value there, value here` of the first leaf that differs between two nests of dicts, lists and arrays, in
    the order of `there`; None where they are the same to the bit."""
    if type(there) is type(here) and isinstance(there, (dict, list)):
        known, found = (each if isinstance(each, dict) else dict(enumerate(each)) for each in (there, here))
        for name in [*known, *(name for name in found if name not in known)]:
            if name not in known or name not in found:
                return f"{key}.{name}: only in the {'unbroken' if name in known else 'broken'} run"
            if difference := first_unequal(known[name], found[name], f"{key}.{name}"):
                return difference
        return None
    if isinstance(there, np.ndarray) and isinstance(here, np.ndarray):
        return _unequal_arrays(there, here, key)
    same = type(there) is type(here) and (there == here or (there != there and here != here))
    return None if same else f"{key}: {there!r} unbroken, {here!r} broken"


def _unequal_arrays(there: np.ndarray, here: np.ndarray, key: str) -> str | None:
    if there.dtype != here.dtype or there.shape != here.shape:
        return f"{key}: {there.dtype}{list(there.shape)} unbroken, {here.dtype}{list(here.shape)} broken"
    if there.tobytes() == here.tobytes():
        return None
    at = tuple(int(i) for i in np.argwhere(there != here)[0]) if (there != here).any() else ()
    return f"{key}{list(at)}: {there[at]!r} unbroken, {here[at]!r} broken"


def words(verdict: Verdict) -> list[str]:
    """For people."""
    told = (
        f"Killed at {verdict.killed_at_env_steps:,} env steps, gone on from {verdict.checkpoint_env_steps:,} to "
        f"{verdict.env_steps:,}; the world {'was saved' if verdict.world_saved else 'cannot be saved'}, exact-resume "
        f"{'on' if verdict.exact_resume else 'off'}."
    )
    if verdict.identical:
        return ["bit-identical: every record and everything in the last checkpoint", told]
    lines = [f"NOT identical: {verdict.first_difference}", told]
    if not verdict.world_saved and not verdict.exact_resume:
        lines.append("Such a world starts anew after a kill; --checkpoint.exact-resume makes both runs do so.")
    return lines
