"""Event files for TensorBoard in RUN_DIR/tensorboard, beside metrics.jsonl and with the same numbers."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from rl_gns.config import ConfigError
from rl_gns.records import UpdateRecord, to_json
from rl_gns.rundir import TENSORBOARD, RunDir


class EventFiles:
    """A context manager; `show` takes each record of the run, after it is on disk.

    Each sitting begins a file anew from the lines of metrics.jsonl (1 to 2 ms each), so that each rollout is drawn
    once, also where a sitting was killed beyond its checkpoint or ran without them. ConfigError where tensorboard is
    not installed.
    """

    def __init__(self, run_dir: Path):
        self._run, self._folder = RunDir(run_dir), run_dir / TENSORBOARD
        self._type = _summary_writer()
        self._writer: Any = None

    def __enter__(self) -> EventFiles:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None and self._writer is None:
            self._begin()  # the run had finished before
        if self._writer is not None:
            self._writer.close()

    def show(self, record: UpdateRecord) -> None:
        """One point a scalar, flushed."""
        if self._writer is None:
            self._begin()
        else:
            self._add(to_json(record))
        self._writer.flush()

    def _begin(self) -> None:
        """All records up to now, in a file whose start purges the points of those before it. The newest of those stays,
        since a TensorBoard that is open looks no further than the file it was reading."""
        there = sorted(self._folder.glob("events.out.tfevents.*"))
        for old in there[:-1]:
            old.unlink()
        for newest in there[-1:]:
            _be_later_than(newest)
        self._writer = self._type(str(self._folder), purge_step=1)
        for record in self._run.records():
            self._add(record)

    def _add(self, record: dict[str, Any]) -> None:
        for name, value in scalars(record):
            self._writer.add_scalar(name, value, record["env_steps"])


def _be_later_than(newest: Path) -> None:
    """Files are read in the order of their names, which begin with the second that they were made in: wait for the next
    one. A file from the future (the clock was set back) goes."""
    made = re.match(r"events\.out\.tfevents\.(\d+)\.", newest.name)
    seconds = int(made[1]) + 1 - time.time() if made else math.inf
    if seconds > 1:
        newest.unlink()
    elif seconds > 0:
        time.sleep(seconds + 0.01)  # a clock that is being set right may run behind


def scalars(record: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """(tag, value) of every number of a record as it is on disk, fields of fields as `field/part`. What is missing is
    left out, and so is a B_simple that has not resolved; its limits stand where they are known."""
    for name, value in record.items():
        if name in ("noise", "noise_across"):
            for part, scale in (value or {}).items():
                yield from _noise_scalars(f"{name}/{part}", scale, coherence=name == "noise_across")
        elif name == "noise_control":
            yield from _noise_scalars(name, value) if value else ()
        else:
            yield from _numbers(name, value)


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for part, inner in value.items():
            yield from _numbers(f"{name}/{part}", inner)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield name, value


def _noise_scalars(tag: str, scale: dict[str, Any], coherence: bool = False) -> Iterator[tuple[str, float]]:
    shown = {"b_simple": scale["resolved"], "low": scale["low"] and scale["low"] > 0, "high": True}
    for number, known in (shown | {"coherence": coherence}).items():
        if known and scale[number] is not None:
            yield f"{tag}/{number}", scale[number]


def _summary_writer() -> type:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            "--tensorboard: the package tensorboard is missing; pip install 'rl-gns[tensorboard]'"
        ) from None
    return SummaryWriter
