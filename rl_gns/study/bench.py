"""`rl-gns bench`: how fast each part is alone, how fast they are together, and what the probe costs.

One alternation measures all of them in turn, so that a drift of the machine hits all alike; what is reported is the
median over alternations, with the lowest and the highest. Rates are in env steps a second. The **component limit** of
a loop that collects and then learns is

    1 / (1 / emulation + 1 / inference + epochs / learner),        learner: rows a second of one epoch
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rl_gns.config import ConfigError, RunConfig
from rl_gns.learn.learner import Learner
from rl_gns.records import UpdateRecord
from rl_gns.rollout.sources import SegmentSource
from rl_gns.study.bench_components import Components
from rl_gns.study.build import checked, make_learner, source
from rl_gns.study.machine_load import BUSY_SHARE, load, share_at_rest, share_of_others
from rl_gns.study.provenance import provenance
from rl_gns.trainer import Trainer

ENDLESS = 1 << 62
RATE = "env steps/s"
BOUNDS = {
    "share_of_limit": ("at least", 85.0),
    "probe_overhead": ("at most", 5.0),
    "bytes_per_env_step": ("at most", 7500.0),
}
"""What the standard configuration is held to."""


@dataclass(frozen=True)
class Spread:
    """One quantity over all alternations."""

    median: float
    low: float
    high: float
    unit: str


@dataclass(frozen=True)
class Alternation:
    """One turn of all measurements; rates in env steps a second."""

    emulation: float
    inference: float
    learner: float
    """Rows a second of one epoch."""
    end_to_end: float
    """The whole loop, the probe off."""
    with_probe: float
    """The whole loop, the probe at its cadence."""
    probe_seconds: float
    """What the loop's own clock says that the probe took in this piece."""
    piece_seconds: float
    """What the piece with the probe took in all."""
    busy_share: float
    """Of the cores, used by others: the larger of the look at rest and the reading while measuring."""


@dataclass(frozen=True)
class Verdict:
    """One bound and what became of it."""

    bound: str
    """`at least 85`, in the measured quantity's unit."""
    verdict: str
    """pass, fail, or `not judged: ` with the reason."""


@dataclass(frozen=True)
class BenchResult:
    """What `--json` prints."""

    env: str
    alternations: int
    rollouts: int
    """Rollouts measured in each piece of an alternation: one period of the probe."""
    machine: dict[str, Any]
    components: dict[str, Spread]
    component_limit: Spread
    end_to_end: Spread
    share_of_limit: Spread
    probe_overhead: Spread
    """Time with the probe over time without it, less one."""
    probe_overhead_by_clock: Spread
    """The probe's own seconds over the rest of its piece: a check on the line above."""
    bytes_per_env_step: Spread
    busy_share: Spread
    judged: bool
    verdicts: dict[str, Verdict]


def component_limit(emulation: float, inference: float, learner: float, epochs: int) -> float:
    """Env steps a second of a loop that does one part after the other and nothing else."""
    return 1 / (1 / emulation + 1 / inference + epochs / learner)


def bench(config: RunConfig, alternations: int, watch: Callable[[str], None] = lambda words: None) -> BenchResult:
    """Measure everything `alternations` times; `watch` gets one line before each."""
    config = checked(config)
    if alternations < 1:
        raise ConfigError(f"--alternations: {alternations} is too small; the least is 1, and 3 make a median")
    if config.noise.every < 1:
        raise ConfigError("--noise.every: 0 has no probe to measure; the default is 10")
    with contextlib.closing(Components(config)) as parts, source(config) as segments:
        loop = Loop(config, make_learner(config), segments)
        _warm_up(parts, loop, config.noise.every)
        turns = []
        for turn in range(alternations):
            watch(f"alternation {turn + 1} of {alternations}")
            turns.append(_alternation(parts, loop, config.noise.every))
        return _result(config, turns, parts)


class Loop:
    """The training loop of `rl-gns train`, with and without its probe: one learner and one source under both."""

    def __init__(self, config: RunConfig, learner: Learner, segments: SegmentSource):
        self._records = {probe: _records(config, learner, segments, probe) for probe in (False, True)}

    def piece(self, rollouts: int, probe: bool) -> tuple[list[UpdateRecord], float]:
        """The records of so many rollouts, and the wall-clock seconds that they took."""
        start = time.perf_counter()
        records = [next(self._records[probe]) for _ in range(rollouts)]
        return records, time.perf_counter() - start

    def side_by_side(self, rollouts: int) -> dict[bool, tuple[list[UpdateRecord], float]]:
        """probe on or off -> `piece`, rollout by rollout in turn: a drift of the machine within seconds hits both."""
        found: dict[bool, tuple[list[UpdateRecord], float]] = {False: ([], 0.0), True: ([], 0.0)}
        for _ in range(rollouts):
            for probe, (records, seconds) in found.items():
                more, took = self.piece(1, probe)
                found[probe] = (records + more, seconds + took)
        return found


def _records(config: RunConfig, learner: Learner, segments: SegmentSource, probe: bool) -> Iterator[UpdateRecord]:
    noise = dataclasses.replace(config.noise, every=config.noise.every if probe else 0)
    return Trainer(dataclasses.replace(config, noise=noise, total_env_steps=ENDLESS), learner, segments).run()


def _warm_up(parts: Components, loop: Loop, rollouts: int) -> None:
    """Everything once, not counted; the loop's first rollout also plays the burn-in, and its first probe allocates."""
    parts.emulation(1)
    parts.inference(1)
    parts.learner_epochs(1)
    loop.piece(rollouts, probe=True)


def _alternation(parts: Components, loop: Loop, rollouts: int) -> Alternation:
    at_rest = share_at_rest()
    before = load()
    rates = [part(rollouts) for part in (parts.emulation, parts.inference, parts.learner_epochs)]
    both = loop.side_by_side(rollouts)
    (plain, plain_seconds), (probed, probed_seconds) = both[False], both[True]
    return Alternation(
        *rates,
        end_to_end=_env_steps(plain) / plain_seconds,
        with_probe=_env_steps(probed) / probed_seconds,
        probe_seconds=sum(record.probe_seconds for record in probed),
        piece_seconds=probed_seconds,
        busy_share=max(at_rest, share_of_others(before, load())),
    )


def _env_steps(records: Sequence[UpdateRecord]) -> int:
    return sum(record.used_env_steps for record in records)


def _result(config: RunConfig, turns: list[Alternation], parts: Components) -> BenchResult:
    limits = [component_limit(t.emulation, t.inference, t.learner, config.batch.epochs) for t in turns]
    learner_unit = "rows/s, 1 epoch"
    result = BenchResult(
        env=config.env,
        alternations=len(turns),
        rollouts=config.noise.every,
        machine=_machine(config, parts.learner),
        components={
            "emulation": spread([t.emulation for t in turns], RATE),
            "inference": spread([t.inference for t in turns], RATE),
            "learner": spread([t.learner for t in turns], learner_unit),
        },
        component_limit=spread(limits, RATE),
        end_to_end=spread([t.end_to_end for t in turns], RATE),
        share_of_limit=spread([100 * t.end_to_end / limit for t, limit in zip(turns, limits, strict=True)], "%"),
        probe_overhead=spread([100 * (t.end_to_end / t.with_probe - 1) for t in turns], "%"),
        probe_overhead_by_clock=spread(
            [100 * t.probe_seconds / (t.piece_seconds - t.probe_seconds) for t in turns], "%"
        ),
        bytes_per_env_step=spread([parts.bytes_per_env_step()], "bytes"),
        busy_share=spread([100 * t.busy_share for t in turns], "% of cores"),
        judged=False,
        verdicts={},
    )
    return judged(result, not_standard(config))


def spread(values: Sequence[float], unit: str) -> Spread:
    """Median, lowest and highest."""
    return Spread(float(statistics.median(values)), float(min(values)), float(max(values)), unit)


def judged(result: BenchResult, other_sizes: str | None) -> BenchResult:
    """The result with a verdict a bound; none is passed or failed on a busy machine or at other sizes."""
    reason = other_sizes
    if result.busy_share.high > 100 * BUSY_SHARE:
        limit = f"more than {BUSY_SHARE:.0%}"
        reason = f"the machine is busy ({result.busy_share.high:.0f} % of the cores used by others, {limit})"
    verdicts = {}
    for name, (side, bound) in BOUNDS.items():
        measured: Spread = getattr(result, name)
        kept = measured.median >= bound if side == "at least" else measured.median <= bound
        verdict = f"not judged: {reason}" if reason else "pass" if kept else "fail"
        verdicts[name] = Verdict(f"{side} {bound:,.0f}", verdict)
    return dataclasses.replace(result, judged=reason is None, verdicts=verdicts)


def not_standard(config: RunConfig) -> str | None:
    """Why the bounds do not hold for this configuration: the first size that is not the standard's. Else None."""
    sizes = {
        "env": (config.env, "Pong"),
        "atari.frame-size": (config.atari.frame_size, 84),
        "learner.network": (config.learner.network.replace("auto", "nature"), "nature"),
        "batch.segment-steps": (config.batch.segment_steps, 128),
        "columns": (config.columns, 8),
        "batch.minibatches": (config.batch.minibatches, 4),
        "batch.epochs": (config.batch.epochs, 4),
        "batch.minibatch-by": (config.batch.minibatch_by, "transitions"),
        "noise.every": (config.noise.every, type(config.noise)().every),
    }
    for name, (here, standard) in sizes.items():
        if here != standard:
            return f"{name} is {here}; the bounds are for {standard}"
    return None


def _machine(config: RunConfig, learner: Learner) -> dict[str, Any]:
    """What the numbers belong to."""
    known = provenance(learner)
    return {
        "cpu": known["machine"]["cpu"],
        "cores": known["machine"]["cores"],
        **known["resolved"],
        "actors": config.actors,
        "torch": known["versions"]["torch"],
        "commit": known["commit"],
        "uncommitted_changes": known["uncommitted_changes"],
    }
