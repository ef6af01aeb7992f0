"""How fast a cluster would train: arithmetic on rates, and nothing else.

A rollout of R = B x minibatches env steps is `waves` times C blocks of T x n env steps, from K actors, and the loop
waits for them, wave by wave:

    seconds = weights + waves x collect + learner
    weights = publish + W (nodes - 1) / network           every node pulls the W bytes from the learner's (`_weights`)
    collect = max over blocks i of t_i + (C - i + 1) max(x, h), + min(x, h)           actors, then link, then driver
      b     = a block on its core, put included; as many times longer as actors share a core
      t_i   = j b (1 + scatter z / sqrt(j))               when the i-th block is expected, in turn j of m = ceil(C / K)
      x     = bytes of a block from other nodes / network
      h     = handling + copying + handling_per_actor K   the driver's one thread
    learner = (epochs + probe's epochs / every) v R / rate

z is the expected order statistic of normal numbers, of the i-th fastest of K. The last block's t is the straggler's; an
earlier i matters where link or driver is behind. R counts rows; v is the share of them that is valid (an autoreset's is
not), and the learner's rate and the bytes are those of valid ones. Every resource works for a part of these seconds;
the bottleneck is the one that is busy longest, an actor's core for all of its work, named by the longest part of that.
Evaluations, checkpoints, burn-ins, faults, several learners: not in it.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from rl_gns.config import RunConfig
from rl_gns.study.build import STORE_BLOCKS

ON_A_CORE = ("emulation", "inference", "bookkeeping")
"""What an actor's core does, one after the other."""
RESOURCES = (*ON_A_CORE, "network", "weights", "driver", "learner")
LOOKS = 17
"""Order statistics that are looked at in a turn."""
NEARLY = 0.9
"""Of the best rate that any batch reaches: a larger batch feeds the learner no faster (a choice)."""


@dataclass(frozen=True)
class Rates:
    """What one machine measured, for one configuration (`of`)."""

    of: dict[str, Any]
    """The settings that the rates belong to; B, seed and budget are none."""
    machine: dict[str, Any]
    cores: int
    emulation: float
    """Rows a second of one core, while all cores work."""
    inference: float
    """Rows a second of one core, while all cores work."""
    block_seconds: float
    """Of T x n env steps on one core, weights loaded first, while all cores work."""
    block_seconds_alone: float
    """The same while one core works."""
    block_scatter: float
    """Standard deviation over mean of a block's seconds."""
    put_bytes_per_second: float
    """Into the object store, by one core."""
    handling_seconds: float
    """Of the driver's one thread for a block, whoever sent it: call, wait, get, look; without `copying_seconds`."""
    handling_seconds_per_actor: float
    """And for every actor that there is: the driver looks at all of them for each answer."""
    learner: float
    """Valid rows a second of one epoch over a rollout that lies in one array."""
    learner_on: str
    """Device and threads."""
    probe_epochs: float
    """A probe's time over that of one epoch."""
    publish_seconds: float
    """The weights out of the learner and into the store."""
    bytes_per_env_step: float
    """In the object store: of all rows, over the valid ones."""
    weights_bytes: int
    valid_share: float
    """Of the rows of a rollout."""
    actor_bytes: int
    """Memory of an actor's own, without columns."""
    column_bytes: int
    """Of a column."""
    memory_bytes: int
    """That this machine, or the cgroup here, allows."""
    copying_seconds: float | None = None
    """Of the driver's one thread for a block, to copy it to its place in the rollout. None: rates kept before it was
    timed, whose `learner` has it in it."""


@dataclass(frozen=True)
class Cluster:
    """Nodes that are all alike; collectors on all cores (the learner's too: the loop never runs both at once)."""

    nodes: int
    cpus: int
    """Cores of a node."""
    gpus: int
    """Of a node; only counted into GPU-hours: what a GPU learner does is in the learner's rate."""
    network: float
    """Gbit/s of a node's link, each way."""
    memory: float
    """GiB of a node."""
    actors: int

    @property
    def link(self) -> float:
        """Bytes a second into one node."""
        return self.network * 1e9 / 8

    @property
    def cores(self) -> int:
        return self.nodes * self.cpus


@dataclass(frozen=True)
class Rollout:
    """What is predicted of one rollout."""

    batch_size: int
    collectors: int
    actors: int
    """That have work."""
    seconds: float
    collect_seconds: float
    """Weights out, blocks in."""
    learn_seconds: float
    """Probe, its mean share, and update."""
    busy: dict[str, float]
    """Resource -> seconds that it works: of one actor (emulation, inference, bookkeeping) or of the one there is."""
    straggler_seconds: float
    """That the slowest actor takes beyond the mean one."""
    bottleneck: str
    """The resource that is busy longest: emulation, inference or bookkeeping where that is an actor's core."""
    env_steps_per_second: float
    """Valid ones."""


def predict(config: RunConfig, batch_size: int, rates: Rates, cluster: Cluster, stragglers: bool = True) -> Rollout:
    """The rollout of that batch size; without `stragglers` every block takes its mean (a control, for tests)."""
    collectors, waves = max(1, config.collectors(batch_size)), config.rollout.waves
    actors, turns = min(cluster.actors, collectors), math.ceil(collectors / cluster.actors)
    parts = _block(config, rates, cluster, actors)
    block, network, driver = sum(parts.values()), _transfer(config, rates, cluster), _handling(rates, cluster)
    scatter = rates.block_scatter if stragglers else 0.0
    weights, learner = _weights(rates, cluster), _learn(config, batch_size, rates)
    arrive = waves * arrival(actors, collectors, block, scatter, network, driver)
    busy = {name: waves * turns * seconds for name, seconds in parts.items()}
    busy |= {"network": waves * collectors * network, "driver": waves * collectors * driver}
    busy |= {"weights": weights, "learner": learner}
    seconds = weights + arrive + learner
    return Rollout(
        batch_size=batch_size,
        collectors=collectors,
        actors=actors,
        seconds=seconds,
        collect_seconds=weights + arrive,
        learn_seconds=learner,
        busy=busy,
        straggler_seconds=waves * math.sqrt(turns) * block * scatter * order_statistic(actors, actors),
        bottleneck=_bottleneck(busy),
        env_steps_per_second=batch_size * config.batch.minibatches * rates.valid_share / seconds,
    )


def _bottleneck(busy: dict[str, float]) -> str:
    core = sum(busy[name] for name in ON_A_CORE)
    others = {name: seconds for name, seconds in busy.items() if name not in ON_A_CORE}
    longest = max(others, key=others.__getitem__)
    return longest if others[longest] > core else max(ON_A_CORE, key=busy.__getitem__)


def arrival(actors: int, blocks: int, block: float, scatter: float, network: float, driver: float) -> float:
    """Seconds until the last block is handled: each block that is still to pass when the i-th one comes takes the
    slower of link and driver so long. Of the turns the first and the last are looked at, of the blocks `LOOKS`."""
    slower, faster, turns = max(network, driver), min(network, driver), math.ceil(blocks / actors)
    latest = 0.0
    for turn in {1, turns}:
        before = (turn - 1) * actors
        now = min(actors, blocks - before)
        for i in {1 + round(look * (now - 1) / (LOOKS - 1)) for look in range(LOOKS)}:
            comes = max(0.0, turn * block * (1 + scatter * order_statistic(i, now) / math.sqrt(turn)))
            latest = max(latest, comes + (blocks - before - i + 1) * slower)
    return latest + faster


def order_statistic(i: int, count: int) -> float:
    """Expected i-th smallest of so many standard normal numbers (Blom 1958; the largest within 0.03 for any count)."""
    return NormalDist().inv_cdf((i - 0.375) / (count + 0.25))


def _block(config: RunConfig, rates: Rates, cluster: Cluster, actors: int) -> dict[str, float]:
    """Part -> seconds of one block on its core. From one busy core of a node to all of them a block's time goes in a
    straight line from what was measured alone to what was measured with all cores at work (a guess in between)."""
    rows = config.batch.segment_steps * config.rollout.columns_per_collector
    per_node = actors / cluster.nodes
    crowd = min(max((per_node - 1) / (cluster.cpus - 1), 0.0), 1.0) if cluster.cpus > 1 else 0.0
    alone, together = rates.block_seconds_alone, rates.block_seconds
    put = _stored(rows, rates) / rates.put_bytes_per_second
    whole = (alone + crowd * (together - alone) + put) * max(1.0, per_node / cluster.cpus)
    emulation, inference = rows / rates.emulation, (rows + config.rollout.columns_per_collector) / rates.inference
    parts = {"emulation": emulation, "inference": inference}
    parts["bookkeeping"] = max(together - emulation - inference, 0.0) + put
    return {name: seconds * whole / sum(parts.values()) for name, seconds in parts.items()}


def _transfer(config: RunConfig, rates: Rates, cluster: Cluster) -> float:
    """Seconds of the learner's link for a block; those of its own node do not travel."""
    rows = config.batch.segment_steps * config.rollout.columns_per_collector
    return _stored(rows, rates) * (1 - 1 / cluster.nodes) / cluster.link


def _stored(rows: float, rates: Rates) -> float:
    """Bytes of so many rows, valid or not."""
    return rows * rates.valid_share * rates.bytes_per_env_step


def _handling(rates: Rates, cluster: Cluster) -> float:
    return rates.handling_seconds + (rates.copying_seconds or 0.0) + rates.handling_seconds_per_actor * cluster.actors


def _weights(rates: Rates, cluster: Cluster) -> float:
    """All nodes ask at once, when one node alone has the object: it sends to each of them. Ray serves late askers from
    nodes that have it by then, so this is the most; a tree would need log2(nodes) transfers."""
    return rates.publish_seconds + (cluster.nodes - 1) * rates.weights_bytes / cluster.link


def _learn(config: RunConfig, batch_size: int, rates: Rates) -> float:
    """Probe (its mean share of a rollout) and all epochs, over the valid rows."""
    epochs = config.batch.epochs + (rates.probe_epochs / config.noise.every if config.noise.every else 0.0)
    return epochs * batch_size * config.batch.minibatches * rates.valid_share / rates.learner


def node_bytes(config: RunConfig, batch_size: int, rates: Rates, cluster: Cluster) -> float:
    """Memory of the learner's node: the actors there, its share of the columns, the rollout once, and what is on its
    way there: `STORE_BLOCKS` an actor, and no more than a wave."""
    rows, segment, waves = batch_size * config.batch.minibatches, config.batch.segment_steps, config.rollout.waves
    on_its_way = min(rows / waves, STORE_BLOCKS * cluster.actors * segment * config.rollout.columns_per_collector)
    columns = rows / (segment * waves * cluster.nodes) * rates.column_bytes
    return math.ceil(cluster.actors / cluster.nodes) * rates.actor_bytes + columns + _stored(rows + on_its_way, rates)


def most_that_fits(config: RunConfig, rates: Rates, cluster: Cluster) -> int:
    """The largest B, on the grid of `batch_unit`, whose rollout fits into the learner's node. 0: none."""
    unit, memory = config.batch_unit, cluster.memory * 2**30
    most = int(memory / _stored(unit, rates)) + 1
    return unit * bisect.bisect_right(
        range(1, most + 1), memory, key=lambda k: node_bytes(config, k * unit, rates, cluster)
    )


def batch_for_all(config: RunConfig, cluster: Cluster) -> int:
    """The least B that gives every actor a collector; below it more actors change nothing."""
    rows = cluster.actors * config.batch.segment_steps * config.rollout.columns_per_collector
    return math.ceil(rows / (config.batch.minibatches * config.batch_unit)) * config.batch_unit


def ladder(config: RunConfig, rates: Rates, cluster: Cluster) -> list[Rollout]:
    """Predictions for `batch_unit` doubled until it no longer fits, and for the largest that fits."""
    most, sizes = most_that_fits(config, rates, cluster), [config.batch_unit]
    while sizes[-1] * 2 <= most:
        sizes.append(sizes[-1] * 2)
    return [predict(config, size, rates, cluster) for size in [*sizes, *([most] if most > sizes[-1] else [])]]


def fed(rungs: list[Rollout]) -> int:
    """The least B of the ladder that reaches `NEARLY` of its best rate."""
    best = max(rung.env_steps_per_second for rung in rungs)
    return next(rung.batch_size for rung in rungs if rung.env_steps_per_second >= NEARLY * best)


def learner_bound(rungs: list[Rollout]) -> int | None:
    """The least B of the ladder whose rollout takes longer to learn from than to collect; None: not one does."""
    return next((rung.batch_size for rung in rungs if rung.learn_seconds >= rung.collect_seconds), None)
