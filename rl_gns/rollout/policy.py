"""The policy as a collector acts on it: published weights, in the precision of the run, one call a step."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch

import envs
from rl_gns.config import RunConfig
from rl_gns.learn.model import Weights, autocast, make_network, resolve_precision, set_weights, trunks_to_bf16


class Policy(Protocol):
    """What a collector asks, one step at a time."""

    def load(self, weights: Any) -> None:
        """Act on these weights from now on: the arrays, or where they are."""

    def infer(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(logits [N, A], value [N]) float32; FloatingPointError where they are not finite."""


class ActingPolicy:
    """Inference for one vector world; in bf16 the trunk's weights are cast once a version, not once a step.

    Casting at every step, as autocast does, costs a third to a half of a step of 4 to 8 columns (measured, Nature CNN).
    """

    def __init__(self, config: RunConfig, world: envs.World, device: str = "cpu"):
        self._device = device
        self._precision = resolve_precision(config.learner.precision, world.frame_shape, device)
        self._network = make_network(
            config.learner.network, world.frame_shape, world.frame_stack, world.n_actions, config.seed
        ).to(device)
        if self._precision == "bf16":
            trunks_to_bf16(self._network)

    def load(self, weights: Weights) -> None:
        """See Policy."""
        set_weights(self._network, weights)

    def infer(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See Policy."""
        return finite(*self.forward(observation))

    @torch.inference_mode()
    def forward(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`infer`, whatever comes of it."""
        rows = np.ascontiguousarray(observation)  # some CPUs round otherwise where rows lie crosswise, as CartPole's do
        with autocast(self._precision, self._device):
            logits, value = self._network(torch.from_numpy(rows).to(self._device))
        return logits.cpu().numpy(), value.cpu().numpy()


def finite(logits: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as they are; FloatingPointError where they are not finite."""
    if not (np.isfinite(logits).all() and np.isfinite(value).all()):
        raise FloatingPointError("the policy's logits or values are not finite: its weights have diverged")
    return logits, value


def policy_without_world(config: RunConfig, device: str) -> ActingPolicy:
    """A policy for any number of columns of the run's world, none of which is hosted here."""
    world = envs.make_vec(config.env, 1, config.atari, [0])
    try:
        return ActingPolicy(config, world, device)
    finally:
        world.close()
