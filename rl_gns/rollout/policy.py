"""The policy as a collector acts on it: published weights, in the precision of the run, one call a step."""

from __future__ import annotations

import numpy as np
import torch

import envs
from rl_gns.config import RunConfig
from rl_gns.learn.model import Weights, autocast, make_network, resolve_precision, set_weights, trunks_to_bf16


class ActingPolicy:
    """Inference on the CPU for one vector world; in bf16 the trunk's weights are cast once a version, not once a step.

    Casting at every step, as autocast does, costs a third to a half of a step of 4 to 8 columns (measured, Nature CNN).
    """

    def __init__(self, config: RunConfig, world: envs.World):
        self._precision = resolve_precision(config.learner.precision, world.frame_shape)
        self._network = make_network(
            config.learner.network, world.frame_shape, world.frame_stack, world.n_actions, config.seed
        )
        if self._precision == "bf16":
            trunks_to_bf16(self._network)

    def load(self, weights: Weights) -> None:
        """Act on these weights from now on."""
        set_weights(self._network, weights)

    @torch.inference_mode()
    def infer(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(logits [N, A], value [N]) float32; FloatingPointError where they are not finite."""
        with autocast(self._precision):
            logits, value = (out.numpy() for out in self._network(torch.from_numpy(observation)))
        if not (np.isfinite(logits).all() and np.isfinite(value).all()):
            raise FloatingPointError("the policy's logits or values are not finite: its weights have diverged")
        return logits, value
