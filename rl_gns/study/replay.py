"""The noise of a frozen policy split by its source, in worlds whose state can be saved.

Four shares that add up to the trace: `columns`, `time` and `actions` (`noise.split`) of the noise that is left under a
re-fitted critic, and `critic`, what the network's own critic adds to it (negative where its errors happen to help).
The re-fitted critic is linear in the inputs of the value head: the least-squares fit to discounted returns of the same
columns before they are replayed, each bootstrapped at its end by the fit itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

import envs
from rl_gns.config import RunConfig
from rl_gns.learn.column_gradients import column_gradient_sums
from rl_gns.learn.gradients import column_groups
from rl_gns.learn.learner import Learner
from rl_gns.learn.returns import gae
from rl_gns.measurement_all import NoiseSplit, Share
from rl_gns.noise.split import SplitMoments, jackknife_error
from rl_gns.rollout.collector import Collector
from rl_gns.rollout.generations import REPLAYED_ELSE_ON, REPLAYED_ON
from rl_gns.segments import SegmentBlock

SOURCES = ("columns", "time", "actions")
N_STARTS = 2048
"""Segments that are replayed at least, over all columns: shares to about 1 % on the Chain (measured, 512 columns)."""
FIT_ENV_STEPS, FIT_ITERATIONS = 512, 10
"""Of each column, to re-fit the critic on, and steps to the fixed point: at gamma = 0.99 an error in the bootstrapped
end falls by 0.99^512 = 0.006 a step there, and weighs little on average (both are guesses)."""
RIDGE = 1e-4
"""Of the mean square of the features, so that a fit on features that repeat each other exists (a guess)."""

Values = Callable[[np.ndarray], np.ndarray]
"""Observations [T + 1, N, d] -> V [T + 1, N]."""


def noise_split(config: RunConfig, learner: Learner, n_starts: int = N_STARTS) -> NoiseSplit:
    """Replays in this process, whatever hosts the collectors otherwise; nulls with the reason where it cannot be."""
    if (reason := _hindrance(config)) is not None:
        return NoiseSplit(None, None, {}, reason, 0, 0)
    own, fresh = (_collectors(config, learner, generation) for generation in (REPLAYED_ON, REPLAYED_ELSE_ON))
    values = _refitted(config, learner, [collector.collect(FIT_ENV_STEPS) for collector in own])
    n_columns = len(own) * config.rollout.columns_per_collector
    groups = column_groups(n_columns, config.noise.groups)
    size = sum(p.numel() for p in learner.network.parameters())
    as_is, refitted = SplitMoments(len(groups), size), SplitMoments(len(groups), size)
    for segment in range(-(-n_starts // n_columns)):
        replays = _replays(config, own, fresh, segment)
        for moments, change in ((as_is, None), (refitted, values)):
            sums, env_steps = zip(*[_column_sums(learner, blocks, change) for blocks in replays], strict=True)
            shape = (n_columns, 2, 2)
            moments.add(np.stack(sums, 1).reshape(*shape, -1), np.stack(env_steps, 1).reshape(shape), groups)
    return _record(as_is, refitted)


def _hindrance(config: RunConfig) -> str | None:
    if config.rollout.waves > 1:
        return "segments of one column would have to be replayed together (rollout.waves)"
    world = envs.make_vec(config.env, 1, config.atari, [0])
    world.reset()
    saved, stack = world.state(), world.frame_stack
    world.close()
    if saved is None:
        return "this world cannot save its state"
    if stack != 1:
        return "replays need single frames as observations"
    if config.learner.normaliser == "rollout":
        return "advantages scaled by their own rollout couple the columns"
    return None


def _collectors(config: RunConfig, learner: Learner, generation: int) -> list[Collector]:
    made = [Collector(config, c, generation) for c in range(config.collectors(config.batch.size))]
    for collector in made:
        collector.load(learner.weights(), learner.version)
    return made


def _replays(
    config: RunConfig, own: Sequence[Collector], fresh: Sequence[Collector], segment: int
) -> list[list[SegmentBlock]]:
    """The next segment under (its own world, its own actions), (own, other), (another world, other), (that, other);
    afterwards the columns stand where the first of them ended."""
    steps = config.batch.segment_steps
    states = [collector.state() for collector in own]
    first = [collector.collect(steps) for collector in own]
    after = [collector.state() for collector in own]
    replays = [first]
    for number, hosts in enumerate((own, fresh, fresh), 1):
        for c, (host, state) in enumerate(zip(hosts, states, strict=True)):
            world = _stream(config, c, segment, 0) if host is not own[c] else None
            host.restore(_elsewhere(state, _stream(config, c, segment, number), world))
        replays.append([host.collect(steps) for host in hosts])
    for collector, state in zip(own, after, strict=True):
        collector.restore(state)
    return replays


def _elsewhere(
    state: dict[str, Any], actions: np.random.Generator, world: np.random.Generator | None
) -> dict[str, Any]:
    """`state` with other action draws, and under another world: that draws from its host's own seeds, except for
    CartPole, whose stream is part of its state, and so is given, the same for both replays."""
    changed = state | {"rng": actions.bit_generator.state}
    if world is not None and "bit_generator" in state["world"]:
        changed["world"] = state["world"] | {"bit_generator": world.bit_generator.state}
    return changed


def _stream(config: RunConfig, collector: int, segment: int, number: int) -> np.random.Generator:
    key = (5, collector, segment, number)
    return np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=key))


def _column_sums(learner: Learner, blocks: list[SegmentBlock], values: Values | None) -> tuple[np.ndarray, np.ndarray]:
    """(sum of the policy gradient over each column's valid rows [N, P], those rows [N])."""
    batch = learner.prepare([_revalued(b, values) for b in blocks] if values else blocks)
    return column_gradient_sums(learner.network, batch)


def _revalued(block: SegmentBlock, values: Values) -> SegmentBlock:
    everywhere = values(block.frames)
    return dataclasses.replace(block, value=everywhere[:-1], last_value=everywhere[-1])


def _refitted(config: RunConfig, learner: Learner, blocks: list[SegmentBlock]) -> Values:
    features = [_value_features(learner, block.frames) for block in blocks]
    valid = np.concatenate([block.valid.ravel() for block in blocks])
    rows = np.concatenate([f[:-1].reshape(-1, f.shape[-1]) for f in features])[valid]
    normal = rows.T @ rows
    normal += RIDGE * np.trace(normal) / len(normal) * np.eye(len(normal))
    weights = np.zeros(len(normal))
    for _ in range(FIT_ITERATIONS):
        fitted = [(f @ weights).astype(np.float32) for f in features]
        returns = [_returns(config.learner.gamma, *each) for each in zip(blocks, fitted, strict=True)]
        weights = np.linalg.solve(normal, rows.T @ np.concatenate(returns)[valid])
    return lambda frames: (_value_features(learner, frames) @ weights).astype(np.float32)


def _returns(gamma: float, block: SegmentBlock, value: np.ndarray) -> np.ndarray:
    """[T N] discounted returns, bootstrapped at time limits and at the end by `value` [T + 1, N]."""
    advantage = gae(block.reward, value[:-1], value[-1], block.terminated, block.truncated, gamma, gae_lambda=1.0)
    return (advantage + value[:-1]).ravel()


@torch.no_grad()
def _value_features(learner: Learner, frames: np.ndarray) -> np.ndarray:
    """[T + 1, N, F + 1] inputs of the value head, and a 1."""
    seen: list[torch.Tensor] = []
    hook = learner.network.value_head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        learner.network(torch.from_numpy(frames.reshape(-1, *frames.shape[2:])).to(learner.device))
    finally:
        hook.remove()
    features = seen[0].double().cpu().numpy().reshape(*frames.shape[:2], -1)
    return np.concatenate([features, np.ones((*frames.shape[:2], 1))], axis=2)


def _record(as_is: SplitMoments, refitted: SplitMoments) -> NoiseSplit:
    values = _four(as_is.parts(), refitted.parts())
    replicates = np.stack([_four(*r) for r in zip(as_is.replicates(), refitted.replicates(), strict=True)])
    errors, total = jackknife_error(replicates), float(values.sum())
    named = zip((*SOURCES, "critic"), values.tolist(), errors.tolist(), strict=True)
    return NoiseSplit(
        noise_trace=total,
        standard_error=float(jackknife_error(replicates.sum(axis=1))),
        shares={name: Share(trace, error, trace / total) for name, trace, error in named},
        reason=None,
        n_starts=as_is.n_starts,
        env_steps=as_is.env_steps,
    )


def _four(as_is: np.ndarray, refitted: np.ndarray) -> np.ndarray:
    """[4]: the three parts under the re-fitted critic, and what the own critic adds."""
    return np.append(refitted, as_is.sum() - refitted.sum())
