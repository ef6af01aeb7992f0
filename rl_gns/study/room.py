"""What this machine, or the cluster that RAY_ADDRESS names, has for the cells of a sweep; what does not fit."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from rl_gns.config import ConfigError, RunConfig
from rl_gns.distributed import session, tasks
from rl_gns.study import machine_limits
from rl_gns.study.sweep import together


@dataclass(frozen=True)
class Room:
    """Wanted against had."""

    where: str
    threads: int
    """Of each cell's learner."""
    actors: int
    """Rollout actors that each cell wants, a CPU each."""
    cpus: float
    at_once: int
    """Cells that will run at a time; 0: not one ever fits."""
    slowdown: float
    """Threads that run at once over CPUs, at least 1."""
    trouble: str | None
    """Why it does not fit, or not yet."""
    memory_free_bytes: int
    disk_free_bytes: int


def room(one: RunConfig, n_cells: int, cells_at_once: int, home: Path) -> Room:
    """For `n_cells` cells like `one`, whose directories lie at or beside `home`."""
    cores = len(os.sched_getaffinity(0))
    threads, actors = one.learner.threads or int(os.environ.get("OMP_NUM_THREADS") or cores), one.actor_cpus
    address, trouble = session.named(), None
    at_once = min(cells_at_once or max(1, cores // (threads + actors)), n_cells)
    cpus = float(cores)
    if address:
        at_once = together(one, n_cells, cells_at_once)
        with session.start(cores, 0):
            nodes = tasks.node_cpus()
        cpus, threads = sum(nodes), one.learner.threads or max(1, int(max(nodes)))
        trouble = None if cells_at_once else tasks.why_none_fits_yet(nodes, threads, actors)
        if trouble:
            at_once = 1
        else:
            at_once, trouble = _at_once(nodes, threads, actors, at_once)
    return Room(
        where=f"the cluster at {address}" if address else "this machine",
        threads=threads,
        actors=actors,
        cpus=cpus,
        at_once=min(at_once, n_cells),
        slowdown=max(1.0, at_once * (threads + actors) / max(cpus, 1.0)),
        trouble=trouble,
        memory_free_bytes=_memory_free(),
        disk_free_bytes=_disk_free(home),
    )


def _at_once(nodes: list[float], threads: int, actors: int, at_once: int) -> tuple[int, str | None]:
    """(cells that run at a time on nodes of so many CPUs, why not one ever does)."""
    try:
        return tasks.shape(nodes, threads, actors, at_once).at_once, None
    except ConfigError as error:
        return 0, f"never fits: {error}"


def warnings(here: Room, memory_bytes: int | None, disk_bytes: int | None) -> list[str]:
    """What will not work as it is, a line each."""
    found, need = [], here.threads + here.actors
    if here.trouble:
        found.append(here.trouble)
    elif need > here.cpus:
        found.append(f"a cell wants {_cpus(here)}, and {here.where} has {here.cpus:g}: they will share them")
    elif here.slowdown > 1:
        found.append(f"{here.at_once} cells of {_cpus(here)} at once share {here.cpus:g} CPUs")
    if memory_bytes and here.where == "this machine" and here.at_once * memory_bytes > here.memory_free_bytes:
        fits = here.memory_free_bytes // memory_bytes
        verdict = f"the most that fits is --cells-at-once {fits}" if fits else "not even one fits"
        found.append(f"{here.at_once} cells at once want {here.at_once * memory_bytes:,} bytes of memory; {verdict}")
    if disk_bytes and disk_bytes > here.disk_free_bytes:
        found.append(f"the disk has {here.disk_free_bytes:,} bytes free of {disk_bytes:,} wanted: it will run full")
    return found


def _cpus(here: Room) -> str:
    actors = f" and {here.actors} actor{'s' * (here.actors > 1)}" if here.actors else ""
    return f"{here.threads} thread{'s' * (here.threads > 1)}{actors}"


def _memory_free() -> int:
    """Of the machine, and no more than this process may use."""
    meminfo = Path("/proc/meminfo")
    lines = meminfo.read_text().splitlines() if meminfo.exists() else []
    free = [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
    return min([*free, machine_limits.memory_bytes()])


def _disk_free(home: Path) -> int:
    home = home.absolute()
    while not home.exists():
        home = home.parent
    return shutil.disk_usage(home).free
