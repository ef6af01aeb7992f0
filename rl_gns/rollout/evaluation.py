"""How good a frozen policy is: complete episodes on columns of their own, which never count as training experience."""

from __future__ import annotations

import numpy as np

import envs
from envs.quadratic import policy_return
from rl_gns.config import RunConfig
from rl_gns.learn.model import Weights, one_thread
from rl_gns.rollout.collector import sample
from rl_gns.rollout.policy import ActingPolicy


def evaluate(config: RunConfig, weights: Weights, at_update: int) -> tuple[float, int]:
    """(mean raw return, env steps spent) of `evaluation_episodes` columns, each playing one episode from its reset.

    The first episode of every column counts, however long it lasts: stopping at the first finishers would favour short
    episodes. Actions are sampled, as in training. Seeds depend on the run's seed and on `at_update` alone. The return
    of a policy of the Quadratic is known without playing it.
    """
    if config.env == "Quadratic":
        return policy_return(weights["policy_head.weight"][0]), 0
    n = config.evaluation_episodes
    rng = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(3, at_update)))
    seeds = rng.choice(envs.SEED_LIMIT, size=n, replace=False).tolist()
    world = envs.make_vec(config.env, n, config.atari, seeds)
    policy = ActingPolicy(config, world)
    policy.load(weights)
    observation, total, playing, env_steps = world.reset(), np.zeros(n), np.ones(n, bool), 0
    with one_thread():
        while playing.any():
            step = world.step(sample(policy.infer(observation)[0], rng)[0])
            playing &= ~step.episode_start
            total += np.where(playing, step.raw_reward, 0.0)
            env_steps += int(playing.sum())
            observation = step.observation
    world.close()
    return float(total.mean()), env_steps
