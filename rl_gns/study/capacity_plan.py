"""`rl-gns plan --cluster`: what a run would do on a cluster that is not here, from rates that are."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rl_gns.config import ConfigError, RunConfig
from rl_gns.config_file import load
from rl_gns.study import capacity, rates
from rl_gns.study.build import checked
from rl_gns.study.capacity import Cluster, Rates, Rollout
from rl_gns.study.cluster_words import NETWORK_GBIT, parse_cluster, said


@dataclass(frozen=True)
class CapacityPlan:
    """What `--json` prints."""

    env: str
    cluster: Cluster
    rollout: Rollout
    """At the configuration's batch size."""
    used: dict[str, float]
    """Resource -> share of its time in which it works: cores of all actors, the learner's link, the driver's thread."""
    ladder: list[Rollout]
    """Other batch sizes."""
    batch_for_all_actors: int
    """The least B that gives every actor work; below it more actors change nothing."""
    batch_fed: int
    """The least B that reaches 90 % of the best rate."""
    batch_learner_bound: int | None
    """The least B of the ladder that takes longer to learn from than to collect; None: none does."""
    batch_most: int
    """The largest that the cluster can feed: its rollout fits into the memory of the learner's node."""
    seconds: float
    """Of the run's whole budget."""
    core_hours: float
    gpu_hours: float
    known: dict[str, str]
    """Quantity -> how it is known: measured, stated, or a guess."""
    rates: Rates
    warnings: list[str]


def plan_cluster(
    file: Path,
    words: str,
    rates_file: Path | None = None,
    learner_rate: float = 0.0,
    seconds: float = 30.0,
    watch: Callable[[str], None] = lambda words: None,
) -> CapacityPlan:
    """The plan of a single run's file on the cluster in those words; ConfigError: the user's mistakes."""
    if not (math.isfinite(learner_rate) and learner_rate >= 0):
        raise ConfigError(f"--learner-rate: {learner_rate:g} will not do; rows a second of one epoch, 0: as measured")
    cluster, config = parse_cluster(words, 1 << 34), checked(load(file))  # both before anything is measured
    if served := config.rollout.inference_actors:
        raise ConfigError(f"--rollout.inference-actors: {served} will not do; the plan knows no such actors: 0")
    if not rates_file and not seconds > 0:
        raise ConfigError(f"--seconds: {seconds:g} measures nothing; 30 is the default, or give --rates")
    found = rates.kept(rates_file, config) if rates_file else rates.measured(config, seconds, watch)
    cluster = parse_cluster(words, found.memory_bytes)
    known = _known(said(words), found, rates_file, learner_rate)
    if learner_rate:
        found = dataclasses.replace(found, learner=learner_rate, learner_on="stated")
    return plan(config, cluster, found, known)


def plan(config: RunConfig, cluster: Cluster, found: Rates, known: dict[str, str]) -> CapacityPlan:
    """The same from rates that are there."""
    one, rungs = capacity.predict(config, config.batch.size, found, cluster), capacity.ladder(config, found, cluster)
    seconds = config.total_env_steps / one.env_steps_per_second
    hours = seconds / 3600
    return CapacityPlan(
        env=config.env,
        cluster=cluster,
        rollout=one,
        used=_used(one, cluster),
        ladder=rungs,
        batch_for_all_actors=capacity.batch_for_all(config, cluster),
        batch_fed=capacity.fed(rungs),
        batch_learner_bound=capacity.learner_bound(rungs),
        batch_most=capacity.most_that_fits(config, found, cluster),
        seconds=seconds,
        core_hours=hours * cluster.cores,
        gpu_hours=hours * cluster.nodes * cluster.gpus,
        known=known,
        rates=found,
        warnings=_warnings(config, cluster, one, found),
    )


def _used(one: Rollout, cluster: Cluster) -> dict[str, float]:
    """The actors' cores: the work of all blocks over all cores; links, driver and learner: there is one."""
    working = sum(one.busy[name] for name in capacity.ON_A_CORE)
    per_core = working * min(1.0, one.actors / cluster.cores) / one.seconds
    once = {name: one.busy[name] / one.seconds for name in ("network", "weights", "driver", "learner")}
    return {"cores of the actors": min(1.0, per_core)} | once


def _known(given: set[str], found: Rates, file: Path | None, learner_rate: float) -> dict[str, str]:
    cores = f"{found.cores} core{'s' * (found.cores > 1)} of {found.machine.get('cpu', 'an unknown CPU')}"
    here = f"measured ({file.name}: {cores})" if file else f"measured here ({cores})"
    return {
        "emulation, inference, blocks, put, handling, copying": here,
        "learner": "stated (--learner-rate)" if learner_rate else f"{here}, on {found.learner_on}",
        "network": "stated" if "network" in given else f"a guess ({NETWORK_GBIT:g} Gbit/s a node)",
        "memory": "stated" if "memory" in given else "taken to be that of the machine measured",
        "broadcast of the weights, the driver beyond 1,024 actors": "formulas, not measured",
    }


def _warnings(config: RunConfig, cluster: Cluster, one: Rollout, found: Rates) -> list[str]:
    """What the reader must know before the numbers."""
    lines, most = [], capacity.most_that_fits(config, found, cluster)
    if cluster.gpus and not found.learner_on.startswith(("cuda", "stated")):
        lines.append(
            "the rate of a GPU learner is not known, since none was measured: this is the learner on "
            f"{found.learner_on}; --learner-rate takes a rate that you measured (`rl-gns bench` there)"
        )
    if found.copying_seconds is None:
        lines.append(
            "these rates were kept before the driver's copy of a block was timed: the driver lacks it, the learner's "
            "rate has it unless that is stated; measure them anew"
        )
    if cluster.actors > one.collectors:
        lines.append(
            f"{cluster.actors - one.collectors:,} of {cluster.actors:,} actors have nothing to do at B = "
            f"{one.batch_size:,}: it has {one.collectors:,} collectors"
        )
    if one.batch_size > most:
        lines.append(f"B = {one.batch_size:,} does not fit into {cluster.memory:.3g} GiB a node; the most is {most:,}")
    if cluster.actors > 1024:
        lines.append(
            f"{cluster.actors:,} actors: the driver was timed with up to 1,024, beyond it is a straight line, which "
            "was a quarter too short with 2,048; it may be the bottleneck where it is not called so"
        )
    return lines
