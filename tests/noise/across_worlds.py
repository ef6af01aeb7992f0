"""Streams of rollouts whose gradient stands, turns or grows under noise that may persist in a column."""

from __future__ import annotations

import numpy as np

from rl_gns.noise import Across, DecayedMoments, gram_signal_trace, leave_one_out
from rl_gns.noise.decayed import WindowEstimate

from .worlds import moments_of

J, P, B = 16, 200, 2048
STEPS = np.full(J, B // J)


def in_a_plane(n, degrees, growth=1.0):
    """[n, P]: |G| = 1 turned by so many degrees a rollout in one plane, its norm times `growth` over the last 40."""
    angle, G = np.deg2rad(degrees) * np.arange(n), np.zeros((n, P))
    G[:, 0], G[:, 1] = np.cos(angle), np.sin(angle)
    return G * growth ** (np.maximum(np.arange(n) - (n - 41), 0) / 40)[:, None]


def wandering(rng, n, degrees):
    """[n, P]: |G| = 1, turned by so many degrees a rollout towards a new random direction."""
    angle, G = np.deg2rad(degrees), np.zeros((n, P))
    G[0, 0] = 1.0
    for t in range(1, n):
        aside = rng.standard_normal(P)
        aside -= aside @ G[t - 1] * G[t - 1]
        G[t] = np.cos(angle) * G[t - 1] + np.sin(angle) * aside / np.linalg.norm(aside)
    return G


def noise(rng, n, noise_to_batch, rho=0.0, rank=P):
    """[n, J, P]: AR(1) over rollouts within each group; the trace over all B env steps is `noise_to_batch`."""
    e = rng.standard_normal((n, J, rank)) * np.sqrt(1 - rho**2)
    e[0] = rng.standard_normal((J, rank))
    for t in range(1, n):
        e[t] += rho * e[t - 1]
    wide = np.zeros((n, J, P))
    wide[..., :rank] = e * np.sqrt(noise_to_batch * J / rank)
    return wide


def weights(n, window_rollouts):
    return np.exp(-np.arange(n)[::-1] / window_rollouts)


def target(G, window_rollouts):
    """|sum_t w_t G_t / W|^2, the squared weighted resultant."""
    w = weights(len(G), window_rollouts)
    return float(np.sum((w @ G / w.sum()) ** 2))


def window_of(gradients, window_rollouts) -> WindowEstimate:
    """One window over [n, J, P], each rollout of B env steps."""
    held = DecayedMoments(window_rollouts * B)
    for t, g in enumerate(gradients):
        gram = g @ g.T
        within = np.vstack([gram_signal_trace(gram, STEPS), np.column_stack(leave_one_out(gram, STEPS))])
        held.add({"policy": g}, {"policy": within}, B, (t + 1) * B)
    return held.estimate("policy")


def signal_of(gradients, window_rollouts) -> float:
    """signal_sq of one window alone: what `window_of` gives, in less time."""
    held, none = DecayedMoments(window_rollouts * B), np.zeros((J + 1, 2))
    for t, g in enumerate(gradients):
        held.add({"policy": g}, {"policy": none}, B, (t + 1) * B)
    return held.estimate("policy").signal_sq


def across_of(gradients, window_rollouts, steps=STEPS, **kwargs) -> Across:
    """The accumulator after [n, J, P]; the same gradients stand for the policy and the rest."""
    across = Across(window_rollouts * B, **kwargs)
    for t, g in enumerate(gradients):
        across.add({"policy": g, "rest": g}, moments_of(g, steps, policy_version=t), (t + 1) * B)
    return across
