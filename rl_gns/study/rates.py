"""The rates that a capacity plan stands on: measured here in about half a minute, kept in a file, read back."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rl_gns.config import ConfigError, RunConfig, first_difference
from rl_gns.config_file import shown
from rl_gns.distributed import session
from rl_gns.learn.model import one_thread
from rl_gns.rollout.collector import Collector
from rl_gns.study import machine_limits
from rl_gns.study.bench_components import Components
from rl_gns.study.build import object_store_bytes
from rl_gns.study.capacity import Rates
from rl_gns.study.provenance import provenance

STRANGERS = 64
"""Columns that are made to tell what one of them takes."""


def of(config: RunConfig) -> dict[str, Any]:
    """The settings that rates belong to, as flags have them. B is none: rates are taken to be linear in env steps."""
    batch, learner = config.batch, config.learner
    return {
        "env": config.env,
        "atari.frame-size": config.atari.frame_size,
        "batch.segment-steps": batch.segment_steps,
        "batch.epochs": batch.epochs,
        "batch.minibatches": batch.minibatches,
        "rollout.columns-per-collector": config.rollout.columns_per_collector,
        "learner.network": learner.network,
        "learner.precision": learner.precision,
        "learner.micro-batch": learner.micro_batch,
        "noise.groups": config.noise.groups,
    }


def measured(config: RunConfig, seconds: float, watch: Callable[[str], None] = lambda words: None) -> Rates:
    """Rates of this machine: half the time for the learner, half for actors on all cores. Ray and PyTorch take ten to
    thirty seconds more to start."""
    cores = len(os.sched_getaffinity(0))
    column_bytes = _column_bytes(config)
    with contextlib.closing(Components(config)) as parts:
        watch(f"measuring the learner for {seconds / 2:.2g} s")
        learner, probe = _learning(parts, seconds / 2)
        known, weights = provenance(parts.learner), parts.learner.weights()
        block, bytes_per_env_step = parts.blocks[0], parts.bytes_per_env_step()
        valid = parts.valid_share
        publishing = _seconds(parts.learner.weights, 5)
    watch(f"measuring {cores} actors and the driver for {seconds / 2:.2g} s")
    with session.start(cores, object_store_bytes(config), address="local"):
        from rl_gns.distributed.rates import measure

        n_bytes = round(bytes_per_env_step * valid * block.action.size)
        hosting = dataclasses.asdict(measure(config, weights, block, n_bytes, cores, seconds / 2))
    hosting["publish_seconds"] += publishing
    return Rates(
        of=of(config),
        machine={"cpu": known["machine"]["cpu"], "commit": known["commit"], "versions": known["versions"]},
        cores=cores,
        learner=learner,
        learner_on=f"{known['resolved']['device']}, {known['resolved']['threads']} threads",
        probe_epochs=probe,
        bytes_per_env_step=bytes_per_env_step,
        weights_bytes=sum(array.nbytes for array in weights.values()),
        valid_share=valid,
        column_bytes=column_bytes,
        memory_bytes=machine_limits.memory_bytes(),
        **hosting,
    )


def _learning(parts: Components, seconds: float) -> tuple[float, float]:
    """(valid rows a second of one epoch, a probe's time in epochs); each once before it counts."""
    parts.learner_epochs(1)
    batch = parts.learner.prepare(parts.rollout)
    parts.learner.probe(batch)
    rounds = max(2, math.ceil(seconds / (_seconds(lambda: parts.learner_epochs(1), 1) * 1.3)))
    rate = parts.learner_epochs(rounds)
    return rate, _seconds(lambda: parts.learner.probe(batch), 3) * rate / parts.env_steps


def _seconds(work: Callable[[], Any], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - start) / times


def _column_bytes(config: RunConfig) -> int:
    """Of resident memory, from a world of `STRANGERS` columns beyond one of a collector's own, made and closed."""
    few = dataclasses.replace(config.rollout, scatter_env_steps=4, burn_in_env_steps=0)
    many = dataclasses.replace(few, columns_per_collector=STRANGERS)
    with one_thread():
        Collector(dataclasses.replace(config, rollout=few), 0).world.close()
        before = _resident()
        world = Collector(dataclasses.replace(config, rollout=many), 0).world
        after = _resident()
        world.close()
    return max(0, after - before) // STRANGERS


def _resident() -> int:
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def kept(file: Path, config: RunConfig) -> Rates:
    """Rates from a file that `plan --cluster --json` printed, or its "rates"; ConfigError where they are no rates, or
    those of another configuration."""
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"--rates: {file}: {error}") from None
    table = table.get("rates", table) if isinstance(table, dict) else table
    rates = Rates(**_fields(table, file))
    if rates.of != of(config):
        words = first_difference(rates.of, of(config)) or "they are of another configuration"
        raise ConfigError(f"--rates: {file}: {words}")
    return rates


POSITIVE = ("emulation", "inference", "block_seconds", "block_seconds_alone", "put_bytes_per_second", "learner")
POSITIVE += ("bytes_per_env_step", "valid_share", "cores", "memory_bytes")


def _fields(table: Any, file: Path) -> dict[str, Any]:
    names = {field.name: str(field.type) for field in dataclasses.fields(Rates)}
    if isinstance(table, dict):  # what has a default came later: files kept before lack it
        table = {f.name: f.default for f in dataclasses.fields(Rates) if f.default is not dataclasses.MISSING} | table
    if not isinstance(table, dict) or set(table) != set(names):
        odd = sorted(set(table) ^ set(names)) if isinstance(table, dict) else [type(table).__name__]
        raise ConfigError(f"--rates: {file}: not what `rl-gns plan --cluster --json` prints; {odd[0]} does not fit")
    for name, kind in names.items():
        value = table[name]
        if value is None and kind.endswith("None"):
            continue
        if kind.startswith(("int", "float")):
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e18
            if not number or (name in POSITIVE and value < 1e-12):
                least = "more than 0" if name in POSITIVE else "0 or more"
                raise ConfigError(f"--rates: {file}: {name} is {shown(value)}; a number of {least} is wanted")
        elif not isinstance(value, dict if kind.startswith("dict") else str):
            raise ConfigError(f"--rates: {file}: {name} is {shown(value)}; a {kind} is wanted")
    return table
