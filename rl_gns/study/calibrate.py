"""A few seconds of a run, to tell how long a whole one takes: what its parts cost, and what it writes.

The loop is the run's own, in this process: rollouts, probes at their cadence, evaluations where they fall due, lines
and a checkpoint on a disk (in a temporary directory). The first rollout, in which columns are scattered and burnt in
and memory is allocated, belongs to the start. Early evaluations are of a policy that has learned nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rl_gns.config import RunConfig
from rl_gns.records import UpdateRecord
from rl_gns.rundir import RunDir
from rl_gns.study.build import make_learner, source
from rl_gns.study.goals import evaluated
from rl_gns.trainer import Trainer

LEAST_ROLLOUTS = 3
"""However long they take: the first belongs to the start, and two make a spread."""
PIECES = 4
"""The rest is cut into so many pieces, whose rates give the spread (a choice)."""


@dataclass(frozen=True)
class Calibration:
    """What one configuration cost."""

    batch_size: int
    rollouts: int
    """Measured, without the first."""
    seconds: float
    """Taken in all."""
    env_steps_per_second: float
    """Valid env steps over rollouts and probes, evaluations and checkpoints left out."""
    slowest: float
    """The same of the slowest piece."""
    fastest: float
    valid_share: float
    """Of the rows of a rollout."""
    start_seconds: float
    """Before the first rollout that counts, less what such a rollout takes."""
    evaluation_seconds: float | None
    """Mean of the evaluations seen; None where none fell due."""
    checkpoint_seconds: float
    line_bytes: float
    """Of a line of metrics.jsonl, mean over the later half."""
    checkpoint_bytes: float
    """Of a checkpoint, its pool of probes filled."""
    memory_bytes: int
    """Peak resident memory of this process meanwhile, Python and PyTorch included."""


@dataclass(frozen=True)
class _Lap:
    record: UpdateRecord
    seconds: float
    evaluation_seconds: float


def calibrate(config: RunConfig, seconds: float) -> Calibration:
    """Run `config` for about so many seconds, collectors in this process, and leave nothing behind."""
    _forget_peak()
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="gns-plan-") as folder, contextlib.closing(RunDir(Path(folder))) as run:
        run.open(config)
        with source(dataclasses.replace(config, actors=0)) as segments:
            trainer = Trainer(config, make_learner(config), segments)
            prepared = time.perf_counter() - begun
            laps = _laps(trainer, run, begun + seconds)
            saved = time.perf_counter()
            state = trainer.state()
            run.save_checkpoint(trainer.env_steps, state)
            checkpoint_seconds = time.perf_counter() - saved
        written = run.checkpoints()[-1]
        checkpoint_bytes = sum(file.stat().st_size for file in written.iterdir())
        lines = run.metrics.read_bytes().splitlines(keepends=True)
    rates, kept = _rates(laps, config), laps[1:] or laps
    env_steps = sum(lap.record.used_env_steps for lap in kept)
    judged = [lap.evaluation_seconds for lap in laps if lap.record.evaluation_return is not None]
    return Calibration(
        batch_size=config.batch.size,
        rollouts=len(kept),
        seconds=time.perf_counter() - begun,
        env_steps_per_second=rates[0],
        slowest=min(rates),
        fastest=max(rates),
        valid_share=env_steps / (len(kept) * config.batch.rollout_env_steps),
        start_seconds=prepared + max(0.0, laps[0].seconds - laps[0].record.used_env_steps / rates[0]),
        evaluation_seconds=float(np.mean(judged)) if judged else None,
        checkpoint_seconds=checkpoint_seconds,
        line_bytes=float(np.mean([len(line) for line in lines[len(lines) // 2 :]])),
        checkpoint_bytes=checkpoint_bytes + _pool_growth(state["pool"], config),
        memory_bytes=_peak_bytes(),
    )


def _laps(trainer: Trainer, run: RunDir, until: float) -> list[_Lap]:
    """Rollouts until the clock says `until`, at least `LEAST_ROLLOUTS`, at most the run's own budget."""
    laps, records, steps = [], trainer.run(), 0
    while len(laps) < LEAST_ROLLOUTS or time.perf_counter() < until:
        start = time.perf_counter()
        if (record := next(records, None)) is None:
            break
        rolled = time.perf_counter()
        record, steps = evaluated(record, trainer, steps), record.optimizer_steps
        judged = time.perf_counter()
        run.append(record)
        laps.append(_Lap(record, time.perf_counter() - judged + rolled - start, judged - rolled))
    return laps


def _rates(laps: Sequence[_Lap], config: RunConfig) -> list[float]:
    """Env steps a second over all that counts, then of each piece; a probe's mean cost is spread over its period."""
    kept = laps[1:] or laps
    probed = [lap for lap in kept if lap.record.probe_groups is not None] or laps[:1]
    cost = (
        float(np.mean([lap.record.probe_seconds for lap in probed])) / config.noise.every if config.noise.every else 0
    )
    cuts = np.linspace(0, len(kept), min(PIECES, len(kept)) + 1).astype(int)
    pieces = [kept, *(kept[a:b] for a, b in itertools.pairwise(cuts))]
    return [_rate(piece, cost) for piece in pieces]


def _rate(laps: Sequence[_Lap], probe_seconds: float) -> float:
    seconds = sum(lap.seconds - lap.record.probe_seconds + probe_seconds for lap in laps)
    return sum(lap.record.used_env_steps for lap in laps) / seconds


def _pool_growth(pool: dict[str, Any], config: RunConfig) -> float:
    """Bytes that a checkpoint still gains until the pool's window, or the run, is full of probes."""
    held = len(pool["rollouts"])
    if not held:
        return 0.0
    span = min(config.noise.window_env_steps, config.total_env_steps)
    full = span / (config.batch.rollout_env_steps * config.noise.every)
    return max(0.0, full / held - 1) * len(json.dumps({name: pool[name] for name in ("rollouts", "series", "control")}))


def _forget_peak() -> None:
    """Linux: from here on VmHWM is the peak since now. Elsewhere the peak stays that of the process."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes() -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
