"""`rl-gns measure`: freeze a policy and collect until its noise scale's interval resolves."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rl_gns.chaos import ChaosConfig
from rl_gns.config import NUMERICS, ConfigError, RunConfig
from rl_gns.learn.batch import Batch
from rl_gns.learn.learner import Learner
from rl_gns.measurement import Measurement
from rl_gns.noise.held import frozen_scale
from rl_gns.noise.interval import fieller, student_quantile
from rl_gns.noise.moments import FrozenMoments, mean_cosine, signal_and_trace
from rl_gns.noise.plan import plan
from rl_gns.records import PARTS, Fault, MomentsKey, NoiseScale
from rl_gns.rollout.generations import MEASURED_ON
from rl_gns.rollout.sources import SegmentSource
from rl_gns.rundir import RunDir, write_json
from rl_gns.study.build import checked, make_learner, source
from rl_gns.study.sitting import named, restoring

LOOK_GROWTH = 1.5
"""The interval is looked at when the rollouts have grown by this factor: each look is a chance to stop on luck."""
FIRST_LOOK = 8
"""Rollouts before the first look."""
BURN_IN_ENV_STEPS = 1024
"""Env steps a column plays under the frozen policy before they count, so that the columns are spread over whole
episodes: about one game of Pong (a guess for others). Without it a fresh Pong policy read 17,000 env steps in its first
rollouts, where all columns are near the start of a game, and beyond 100,000 later (measured, pong_small, seed 0)."""

SHUFFLED_EVERY = 4
"""Every so many rollouts the rows are grouped once more, shuffled, for the design effect (chosen: it doubles what the
gradients of these rollouts cost, and two traces are known long before the signal)."""

Watch = Callable[[int, dict[str, NoiseScale]], None]


def measure(
    config: RunConfig,
    max_env_steps: int,
    precision: float = math.inf,
    watch: Watch = lambda env_steps, noise: None,
    state: dict[str, Any] | None = None,
) -> Measurement:
    """Noise scale of the policy in `state` (a run's checkpoint), or of a fresh one; every weight stays frozen.

    Stops at the first look at which the policy part is resolved and its interval no wider than +-`precision` of
    B_simple (inf: any width; 0: at no look), or at `max_env_steps` valid env steps. Looks are `LOOK_GROWTH` apart;
    their number is reported, since stopping at a favourable look costs some coverage.
    """
    config = burnt_in(checked(config))
    start = time.perf_counter()
    learner = make_learner(config)
    if state is not None:
        with restoring(state):
            learner.load_policy(state["learner"])
    with source(config) as segments:
        segments.restore(None, generation=MEASURED_ON)
        segments.publish(learner.weights(), learner.version)
        run = _Freeze(config, learner, segments, max_env_steps, precision)
        run.collect(watch)
    return run.measurement(state, time.perf_counter() - start)


def burnt_in(config: RunConfig) -> RunConfig:
    """The settings under which a frozen policy is measured: columns play `BURN_IN_ENV_STEPS` before they count."""
    return dataclasses.replace(config, rollout=dataclasses.replace(config.rollout, burn_in_env_steps=BURN_IN_ENV_STEPS))


def precise(scale: NoiseScale, precision: float) -> bool:
    """Resolved, and half the interval's width is at most `precision` times B_simple."""
    return scale.resolved and (scale.high - scale.low) / 2 <= precision * scale.b_simple


class _Freeze:
    """The accumulation over rollouts of one frozen policy."""

    def __init__(
        self, config: RunConfig, learner: Learner, segments: SegmentSource, max_env_steps: int, precision: float
    ):
        self._config, self._learner, self._segments = config, learner, segments
        self._max_env_steps, self._precision = max_env_steps, precision
        self._frozen = FrozenMoments()
        self._cosines: list[float] = []
        self._traces: list[tuple[float, float]] = []  # of shuffled transitions, of columns
        self._rng = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(2,)))
        self._ratio_error, self._burn_in, self._looks, self._off_policy = 0.0, 0, 0, False
        self._key: MomentsKey | None = None
        self._batch_size: int | None = None
        self._faults: list[Fault] = []
        self._returns: list[float] = []
        self._noise: dict[str, NoiseScale] = {}

    def collect(self, watch: Watch) -> None:
        self._calibrate()
        look = FIRST_LOOK
        while self._frozen.env_steps < self._max_env_steps:
            self._add(self._rollout())
            if self._frozen.n_rollouts >= look or self._frozen.env_steps >= self._max_env_steps:
                look = max(look + 1, int(look * LOOK_GROWTH))
                self._looks += 1
                self._noise = self._scales()
                watch(self._frozen.env_steps, self._noise)
                if precise(self._noise["policy"], self._precision):
                    return

    def _calibrate(self) -> None:
        """A policy without advantage statistics gets them from one rollout that does not count."""
        if self._config.learner.normaliser == "ewma" and self._learner.statistics.mean_std() is None:
            batch = self._rollout()
            self._burn_in += batch.env_steps
            self._learner.statistics.add(batch.advantages())

    def _rollout(self) -> Batch:
        sizes = self._config.batch
        collected = self._segments.collect(self._config.collectors(sizes.size), sizes.segment_steps)
        self._burn_in += sum(b.burn_in_env_steps for b in collected.blocks)
        self._faults += collected.faults
        self._returns += [float(score) for b in collected.blocks for score in b.episode_returns]
        return self._learner.prepare(collected.blocks)

    def _add(self, batch: Batch) -> None:
        gradients = self._learner.group_gradients(batch)
        moments = self._learner.moments(batch, gradients)
        if self._frozen.n_rollouts % SHUFFLED_EVERY == 0:
            shuffled = self._learner.moments(batch, self._learner.shuffled_gradients(batch, self._rng))
            self._traces.append((signal_and_trace(shuffled, "policy")[1], signal_and_trace(moments, "policy")[1]))
        self._frozen.add(gradients.parts(), moments.gram, moments.env_steps)
        self._cosines.append(mean_cosine(moments.gram["policy"]))
        self._ratio_error = float(np.maximum(self._ratio_error, moments.max_ratio_error))
        self._off_policy |= moments.off_policy
        self._key, self._batch_size = moments.key, moments.batch_size

    def _scales(self) -> dict[str, NoiseScale]:
        facts = {"key": self._key, "policy_version": self._learner.version, "off_policy": self._off_policy}
        facts["batch_size"] = self._batch_size
        return {part: frozen_scale(self._frozen, part, self._config.noise.confidence, **facts) for part in PARTS}

    def measurement(self, state: dict[str, Any] | None, seconds: float) -> Measurement:
        counters = state["counters"] if state else {"env_steps": 0, "update": 0}
        scale, frozen = self._noise["policy"], self._frozen
        group_env_steps = frozen.env_steps / (frozen.n_rollouts * frozen.n_groups)
        planned = plan(scale, self._precision or math.inf)
        return Measurement(
            env=self._key.env,
            policy=f"update {counters['update']}" if state else "fresh",
            policy_env_steps=counters["env_steps"],
            seed=self._config.seed,
            generation=MEASURED_ON,
            key=self._key,
            noise=self._noise,
            n_groups=frozen.n_groups,
            env_steps=frozen.env_steps,
            max_env_steps=self._max_env_steps,
            precision=self._precision if 0 < self._precision < math.inf else None,
            env_steps_needed=0 if precise(scale, self._precision or math.inf) else planned.env_steps,
            law=planned.law,
            long_run_ratio=scale.long_run_ratio,
            **design_effect(np.array(self._traces), self._config.noise.confidence),
            mean_cosine=float(np.mean(self._cosines)),
            expected_cosine=1 / (1 + scale.b_simple / group_env_steps) if math.isfinite(scale.b_simple) else None,
            group_env_steps=group_env_steps,
            max_ratio_error=self._ratio_error,
            looks=self._looks,
            burn_in_env_steps=self._burn_in,
            faults=self._faults,
            seconds=seconds,
            return_mean=float(np.mean(self._returns)) if self._returns else None,
            episodes=len(self._returns),
            stops_early=self._precision > 0,
            numerics=NUMERICS,
        )


def design_effect(traces: np.ndarray, confidence: float) -> dict[str, float | None]:
    """Mean of `traces [n, 2]` by columns (second) over the mean by shuffled transitions (first), of the same rollouts.

    Fieller's interval with the covariance between rollouts, t with n - 1 degrees of freedom; null ends where unbounded.
    """
    shuffled, columns = traces.mean(axis=0)
    low, high = 0.0, math.inf
    if len(traces) > 1:
        low, high, _ = fieller(
            shuffled, columns, np.cov(traces.T) / len(traces), student_quantile(confidence, len(traces) - 1)
        )
    return {
        "design_effect": float(columns / shuffled) if shuffled > 0 else None,
        "design_effect_low": low if low > 0 else None,
        "design_effect_high": high if math.isfinite(high) else None,
    }


def newest_policy(path: Path, actors: int) -> tuple[RunConfig, dict[str, Any]]:
    """A run's settings, but for `actors`, one learner and no chaos, and its newest checkpoint; ConfigError: it has
    none."""
    run = RunDir(path)
    config, found = run.config(), run.newest_checkpoint()
    if found is None:
        raise ConfigError(
            f"--run-dir: {path} has no checkpoint yet; train it first, or measure a fresh policy with --env"
        )
    return dataclasses.replace(config, actors=actors, learners=1, chaos=ChaosConfig()), named(*found)


def measure_run(path: Path, max_env_steps: int, precision: float, actors: int, watch: Watch) -> Measurement:
    """Measure the newest checkpoint of a run; the result is written into its directory as measure.json."""
    config, state = newest_policy(path, actors)
    write_json(path / ".measure.writable", None)  # better refused now than after the collecting
    (path / ".measure.writable").unlink()
    measured = measure(config, max_env_steps, precision, watch, state)
    write_json(path / "measure.json", measured)
    return measured
