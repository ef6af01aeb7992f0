"""`rl-gns measure --all`: a frozen policy's noise scale in other metrics, by a line search, and split by its source."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from rl_gns.config import ConfigError, RunConfig
from rl_gns.learn.batch import Batch
from rl_gns.learn.gradients import GroupGradients, column_groups
from rl_gns.learn.held_out import HeldOut
from rl_gns.learn.learner import Learner
from rl_gns.learn.line_search import HeldOutSurrogate
from rl_gns.learn.metrics import fisher_grams, hessian_grams, layers, minibatch_scale, optimizer_scale
from rl_gns.learn.optimizer import OPTIMIZER_EPS
from rl_gns.measurement_all import AllMeasurement, LineSearch
from rl_gns.noise.line import Level, fit
from rl_gns.noise.metric import MetricGrams, MetricMoments, defined
from rl_gns.noise.scale import hopeless_reasons
from rl_gns.records import MomentsKey, NoiseScale
from rl_gns.rollout.generations import HELD_OUT_ON, MEASURED_ON
from rl_gns.rollout.sources import LocalSource, SegmentSource
from rl_gns.study.build import checked, make_learner, source
from rl_gns.study.measure import burnt_in, newest_policy
from rl_gns.study.replay import noise_split
from rl_gns.study.sitting import restoring

HELD_OUT_ENV_STEPS = 8192
"""Env steps that judge each step of the line search and make v (a guess between error and time); at least two rollouts.
Curvature takes the first rollout of them."""
LEVEL_GROWTH = 4
"""The line search looks at a group's gradient over 1, 4, 16, ... rollouts, and at that of all groups and rollouts."""


def measure_all(
    config: RunConfig,
    max_env_steps: int,
    state: dict[str, Any] | None = None,
    hessian: bool = False,
    held_out_env_steps: int = HELD_OUT_ENV_STEPS,
) -> AllMeasurement:
    """All of it, for the policy in `state` (a run's checkpoint) or a fresh one, from `max_env_steps` valid env steps
    or just above, beside the held-out and the replayed ones. Every weight stays frozen."""
    config = burnt_in(checked(config))
    if config.env == "Quadratic":
        raise ConfigError("--all: the Quadratic has no actions, so no surrogate to weigh with; leave --all out")
    start = time.perf_counter()
    learner = make_learner(config)
    if state is not None:
        with restoring(state):
            learner.restore(state["learner"])
    study = _Study(config, learner, hessian, held_out_env_steps)
    with source(config) as segments:
        segments.restore(None, generation=MEASURED_ON)
        segments.publish(learner.weights(), learner.version)
        study.collect(segments, max_env_steps)
    return study.measurement(state, start)


def measure_all_of(run_dir: str, config: RunConfig, max_env_steps: int, hessian: bool) -> AllMeasurement:
    """The newest checkpoint of a run (of `config` only the actors count); a fresh policy where `run_dir` is empty."""
    if not run_dir:
        return measure_all(config, max_env_steps, hessian=hessian)
    settings, state = newest_policy(Path(run_dir), config.actors)
    return measure_all(settings, max_env_steps, state, hessian)


class _Study:
    """One frozen policy: the held-out rollouts, then sums over the measured ones."""

    def __init__(self, config: RunConfig, learner: Learner, hessian: bool, held_out_env_steps: int):
        self._config, self._learner, self._hessian = config, learner, hessian
        self._burn_in = 0
        batches = self._hold_out(held_out_env_steps)
        n_groups = len(column_groups(batches[0].n_columns, config.noise.groups))
        self._held = HeldOut(batches, n_groups, config.learner.micro_batch)
        self._curved = dataclasses.replace(self._held, batches=batches[:1])
        self._scale, self._scale_from = self._optimizer_scale()
        self._layers = layers(learner.network)
        self._metrics: dict[str, MetricMoments] = {}
        self._sums, self._steps = np.zeros(()), np.zeros(())
        self._levels: list[tuple[float, np.ndarray]] = []
        self._key: MomentsKey | None = None
        self._n_rollouts, self._off_policy = 0, False

    def _hold_out(self, env_steps: int) -> list[Batch]:
        """Held-out rollouts in this process; the first gives the advantage statistics where the policy has none."""
        local, batches = LocalSource(self._config), []
        try:
            local.restore(None, generation=HELD_OUT_ON)
            local.publish(self._learner.weights(), self._learner.version)
            if self._config.learner.normaliser == "ewma" and self._learner.statistics.mean_std() is None:
                calibration = self._rollout(local)
                self._burn_in += calibration.env_steps
                self._learner.statistics.add(calibration.advantages())
            while len(batches) < 2 or sum(b.env_steps for b in batches) < env_steps:
                batches.append(self._rollout(local))
        finally:
            local.close()
        return batches

    def _rollout(self, segments: SegmentSource) -> Batch:
        sizes = self._config.batch
        collected = segments.collect(self._config.collectors(sizes.size), sizes.segment_steps)
        self._burn_in += sum(b.burn_in_env_steps for b in collected.blocks)
        return self._learner.prepare(collected.blocks)

    def _optimizer_scale(self) -> tuple[np.ndarray, str]:
        name = self._config.learner.optimizer
        if (scale := optimizer_scale(self._learner.optimizer)) is not None:
            return scale, f"the checkpoint's {name} state"
        gradients = [self._learner.group_gradients(batch) for batch in self._held.batches]
        pieces = self._config.batch.minibatches
        n = sum(min(pieces, len(g.env_steps)) for g in gradients)
        scale = minibatch_scale(gradients, pieces, self._config.learner.max_grad_norm, OPTIMIZER_EPS)
        return scale, f"mean square of {n} held-out minibatch gradients"

    def collect(self, segments: SegmentSource, max_env_steps: int) -> None:
        next_level = 1
        while self._steps.sum() < max_env_steps:
            batch = self._rollout(segments)
            gradients = self._learner.group_gradients(batch)
            moments = self._learner.moments(batch, gradients)
            self._key, self._off_policy = moments.key, self._off_policy or moments.off_policy
            self._add(gradients)
            if self._n_rollouts == next_level:
                next_level *= LEVEL_GROWTH
                mean = (self._sums / self._steps[:, None]).astype(np.float32)
                self._levels.append((float(self._steps.mean()), mean))

    def _add(self, gradients: GroupGradients) -> None:
        policy, steps = gradients.policy.cpu().numpy(), gradients.env_steps
        self._n_rollouts += 1
        curvature = self._n_rollouts & (self._n_rollouts - 1) == 0  # rollouts 1, 2, 4, 8, ...: their cost is bounded
        for name, grams in self._grams(policy, curvature).items():
            self._metrics.setdefault(name, MetricMoments()).add(grams, steps)
        self._sums = self._sums + policy.astype(np.float64) * steps[:, None]
        self._steps = self._steps + steps

    def _grams(self, gradients: np.ndarray, curvature: bool) -> dict[str, MetricGrams]:
        """metric -> Gram matrices of `gradients` [J, P]."""
        grams = {name: MetricGrams.of(gradients[:, where]) for name, where in self._layers.items()}
        grams["plain"] = MetricGrams(np.sum([g.sums for g in grams.values()], axis=0), np.ones(1))
        grams["adam"] = MetricGrams.of(gradients / self._scale)
        if curvature:
            grams["fisher"] = fisher_grams(self._learner.network, gradients, self._curved)
        if curvature and self._hessian:
            grams["hessian"] = hessian_grams(self._learner.network, gradients, self._curved)
        return grams

    def measurement(self, state: dict[str, Any] | None, start: float) -> AllMeasurement:
        mean = self._sums / self._steps[:, None]
        scales = {name: self._noise_scale(name, grams) for name, grams in self._grams(mean, curvature=True).items()}
        reached = [name for name in self._layers if scales[name].noise_trace > 0 or scales[name].signal_sq > 0]
        return AllMeasurement(
            env=self._key.env,
            policy=f"update {state['counters']['update']}" if state else "fresh",
            key=self._key,
            plain=scales["plain"],
            layers={name: scales[name] for name in reached},
            no_gradient=[name for name in self._layers if name not in reached],
            adam=scales["adam"],
            adam_from=self._scale_from,
            fisher=scales["fisher"],
            hessian=defined(scales["hessian"]) if self._hessian else None,
            line_search=self._line_search(mean),
            split=noise_split(self._config, self._learner),
            held_out_env_steps=int(self._held.rows.sum()),
            curvature_rollouts=self._metrics["fisher"].n_rollouts,
            burn_in_env_steps=self._burn_in,
            seconds=time.perf_counter() - start,
        )

    def _noise_scale(self, name: str, mean: MetricGrams) -> NoiseScale:
        return self._metrics[name].scale(
            mean,
            self._config.noise.confidence,
            coupled=self._key.coupled,
            off_policy=self._off_policy,
            env_steps=int(self._steps.sum()),
            n_rollouts=self._n_rollouts,
            first_version=self._learner.version,
            last_version=self._learner.version,
            key_id=self._key.id,
        )

    def _line_search(self, mean: np.ndarray) -> LineSearch:
        """Levels of one group each over more and more rollouts, then all groups over all rollouts."""
        judge = HeldOutSurrogate(self._learner.network, self._held, self._config.learner.clip_range)
        levels: list[Level | None] = []
        for batch_size, gradients in self._levels:
            levels.append(judge.level(gradients, batch_size, _start(levels)))
        whole, left = self._steps.sum(), self._steps.sum() - self._steps
        deleted = (self._steps @ mean - self._steps[:, None] * mean) / left[:, None]
        everything = np.concatenate([(self._steps @ mean / whole)[None], deleted])
        levels.append(judge.level(everything, whole, _start(levels), leave_one_out=left))
        sizes = [size for size, _ in self._levels] + [float(whole)]
        return self._line(levels, sizes)

    def _line(self, levels: list[Level | None], sizes: list[float]) -> LineSearch:
        rows, confidence = self._held.rows, self._config.noise.confidence
        eps_opt = [level.best(rows / rows.sum())[1] if level else None for level in levels]
        facts = {"batch_size": sizes, "eps_opt": eps_opt, "clip_range": self._config.learner.clip_range}
        facts |= {"env_steps": int(rows.sum())}
        if None in eps_opt:
            reason = "undefined: along a gradient the surrogate has no minimum"
            return LineSearch(None, None, None, False, reason, None, **facts)
        line = fit([level for level in levels if level], rows, len(self._steps), confidence)
        reasons = hopeless_reasons(len(self._steps), self._key.coupled, self._off_policy)
        reasons += [] if line.resolved else ["the intercept's interval touches zero"]
        found = (_known(line.b_noise), line.low, _known(line.high), not reasons, "; ".join(reasons) or None)
        return LineSearch(*found, _known(line.eps_max), **facts)


def _start(levels: list[Level | None]) -> float | None:
    """The best step so far of the level before: larger batches take larger steps."""
    last = levels[-1] if levels else None
    return None if last is None else float(last.eps[np.argmin(last.losses.mean(axis=(0, 2)))])


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
