"""How much of the machine others use: the busy time of /proc/stat, less the CPU time of this process and its children.

A machine that others use measures them too, so `rl-gns bench` reads this before and between its alternations, at
rest and while it measures, and judges nothing above BUSY_SHARE.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

BUSY_SHARE = 0.10
"""The largest share of the machine's cores that others may use (a guess: it costs a rate about as much)."""
IDLE_SECONDS = 1.0
"""A look at the machine at rest: a hundred clock ticks a core, so one tick is a percent."""
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Load:
    """CPU time since the machine started, and since our processes did."""

    wall_seconds: float
    """A monotonic clock."""
    busy_seconds: float
    """Of all cores and everyone, time stolen by other guests of the same host included."""
    our_seconds: float
    """Of this process, its living descendants and those they have waited for."""
    cores: int


def load() -> Load:
    """One reading, now."""
    lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, lines[0].split()[1:9])
    cores = sum(line.startswith("cpu") for line in lines) - 1
    busy = (user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND
    return Load(time.monotonic(), busy, _our_ticks(os.getpid()) / TICKS_PER_SECOND, cores)


def share_of_others(before: Load, after: Load) -> float:
    """Others' CPU time between two readings, as a share in [0, 1] of what all cores could have given."""
    others = (after.busy_seconds - before.busy_seconds) - (after.our_seconds - before.our_seconds)
    return min(1.0, max(0.0, others / ((after.wall_seconds - before.wall_seconds) * after.cores)))


def share_at_rest() -> float:
    """The share of others over IDLE_SECONDS in which this process does nothing."""
    before = load()
    time.sleep(IDLE_SECONDS)
    return share_of_others(before, load())


def _our_ticks(root: int) -> int:
    """User and system time of the tree below `root`; the children of each that are over count with it."""
    parent, ticks = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, _, rest = stat.read_text(encoding="utf-8", errors="replace").partition(" (")
        except OSError:  # it has just ended
            continue
        field = rest.rpartition(") ")[2].split()
        parent[int(pid)], ticks[int(pid)] = int(field[1]), sum(map(int, field[11:15]))
    ours, found = {root}, True
    while found:
        found = {pid for pid, above in parent.items() if above in ours} - ours
        ours |= found
    return sum(ticks.get(pid, 0) for pid in ours)
