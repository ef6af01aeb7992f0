"""The learner of a quadratic loss, for the world whose front is known (`envs.quadratic`): the real one, its loss apart.

The weights w are the policy head of a `linear` network for one action, and a row's observation is xi, the noise of its
gradient. At optimizer step k the loss of R rows is sum_r h/2 |w - m_k|^2 + xi_r' w, so that each row has the gradient
h (w - m_k) + xi_r. The noise scale's part `policy` is all of it; `rest` is zero.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from rl_gns.config import RunConfig
from rl_gns.learn.batch import Batch, Rows
from rl_gns.learn.gradients import GroupGradients
from rl_gns.learn.learner import Learner
from rl_gns.learn.ppo import LossSums


class QuadraticLearner(Learner):
    """SGD where H = `curvature` I and the minimum of optimizer step k is `minimum(seed, k)` [P].

    ValueError where the settings would make another law of it.
    """

    def __init__(
        self, config: RunConfig, curvature: float, minimum: Callable[[int, int], np.ndarray], env_protocol: str
    ):
        _check(config)
        self._curvature, self._minimum = curvature, minimum
        super().__init__(config, minimum(config.seed, 0).shape, 1, 1, env_protocol)

    def _away(self) -> torch.Tensor:
        """w - m_k [P]; one rollout is one optimizer step."""
        w = self.network.policy_head.weight[0]
        return w - torch.from_numpy(self._minimum(self.config.seed, self.version)).to(w)

    def _gradients_of(self, batch: Batch, groups: list[np.ndarray]) -> GroupGradients:
        with torch.no_grad():
            lasting = self._curvature * self._away()
            rows = [batch.rows(index) for index in groups]
            policy = torch.stack([lasting + r.observation.mean(dim=0) for r in rows])
            control = torch.stack([r.control.double().mean(dim=0) for r in rows])
        env_steps = np.array([len(index) for index in groups])
        return GroupGradients(policy, torch.zeros_like(policy), env_steps, 0.0, control.cpu().numpy())

    def _accumulate(self, rows: Rows, minibatch_rows: int) -> LossSums:
        bowl = 0.5 * self._curvature * self._away().square().sum()
        noise = self.network.policy_head(rows.observation).sum()
        ((len(rows.observation) * bowl + noise) / minibatch_rows).backward()
        loss, nothing = (len(rows.observation) * bowl + noise).detach(), torch.zeros(())
        return LossSums(loss, nothing, nothing, nothing, nothing, nothing)


def _check(config: RunConfig) -> None:
    settings, batch = config.learner, config.batch
    for key, value, needed in (
        ("learner.network", settings.network, "linear"),
        ("learner.optimizer", settings.optimizer, "sgd"),
        ("learner.max-grad-norm", settings.max_grad_norm, 0.0),
        ("batch.epochs", batch.epochs, 1),
        ("batch.minibatches", batch.minibatches, 1),
    ):
        if value != needed:
            raise ValueError(f"{key}: {value!r} makes the Quadratic another than its known law; {needed} is needed")
