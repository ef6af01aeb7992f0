"""Worlds whose noise scale is known, for the tests of this room."""

from __future__ import annotations

import numpy as np

from rl_gns.noise import FrozenMoments
from rl_gns.records import PARTS, GroupMoments, MomentsKey

STEPS = np.full(8, 128)


def key(**changes) -> MomentsKey:
    fields = dict(
        env="world",
        segment_steps=16,
        waves=1,
        gamma=0.99,
        gae_lambda=0.95,
        normaliser="ewma",
        epochs=1,
        minibatches=1,
        minibatch_by="columns",
        value_coef=0.5,
        entropy_coef=0.01,
        network="none",
        precision="float32",
    )
    return MomentsKey(**{**fields, **changes})


def moments_of(gradients: np.ndarray, env_steps: np.ndarray, **changes) -> GroupMoments:
    """Moments of group gradients [J, P]; the same for every part."""
    fields = dict(key=key(), policy_version=0)
    gram = np.asarray(gradients, np.float64) @ np.asarray(gradients, np.float64).T
    return GroupMoments(gram=dict.fromkeys(PARTS, gram), env_steps=np.asarray(env_steps), **{**fields, **changes})


def gaussian_gradients(rng, shape: tuple[int, ...], env_steps: np.ndarray, b_simple: float, p: int) -> np.ndarray:
    """[*shape, J, p] group means with |G|^2 = 1, Sigma = (b_simple / p) I per env step, N_k = env_steps [J]."""
    mean = np.zeros(p)
    mean[0] = 1.0
    noise = rng.standard_normal((*shape, len(env_steps), p), dtype=np.float32)
    return mean + noise * np.sqrt(b_simple / p / env_steps)[:, None]


def signals_and_traces(gradients: np.ndarray, env_steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`gram_signal_trace` from the vectors themselves, for gradients [..., J, P] and N_k [..., J]."""
    n_groups = gradients.shape[-2]
    share = env_steps / env_steps.sum(axis=-1, keepdims=True)
    mean = (share[..., None] * gradients).sum(axis=-2)
    mean_sq = (mean**2).sum(axis=-1)
    group_sq = (share * (gradients**2).sum(axis=-1)).sum(axis=-1)
    spread = (env_steps * ((gradients - mean[..., None, :]) ** 2).sum(axis=-1)).sum(axis=-1)
    return (n_groups * mean_sq - group_sq) / (n_groups - 1), spread / (n_groups - 1)


def history_of(n, b_simple=1000.0, seed=0, steps=STEPS, **changes):
    """n rollouts of Gaussian group gradients, policy versions 0 .. n-1."""
    gradients = gaussian_gradients(np.random.default_rng(seed), (n,), steps, b_simple, p=50)
    return [moments_of(g, steps, policy_version=i, **changes) for i, g in enumerate(gradients)]


def frozen_of(policy, rest, steps):
    """FrozenMoments fed with [R, J, P] gradients and [R, J] env steps."""
    frozen = FrozenMoments()
    for p, r, n in zip(policy, rest, steps, strict=True):
        gram = {name: g.astype(np.float64) @ g.T for name, g in (("policy", p), ("rest", r), ("total", p + r))}
        frozen.add({"policy": p.astype(np.float32), "rest": r.astype(np.float32)}, gram, n)
    return frozen
