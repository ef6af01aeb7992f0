"""The policy gradient of every column's segment at once: for small networks on vector observations."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from rl_gns.learn.batch import Batch
from rl_gns.learn.held_out import Parameters, point

COLUMNS_AT_ONCE = 64
"""Memory: so many float32 copies of the network's weights beside the result."""


def column_gradient_sums(network: nn.Module, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """(sum of the policy loss's gradient over each column's valid rows [N, P] float32, those rows [N]).

    At the weights that collected every ratio is 1, so a row's gradient is -A grad log pi: `group_gradients` with a
    group a column, times its rows, in one vectorised pass.
    """
    shape = (batch.segment_steps, batch.n_columns)
    valid = batch.valid.reshape(shape)
    rows = batch.rows(np.arange(valid.size))
    weight = rows.advantage * torch.from_numpy(batch.valid).to(rows.advantage)
    by_column = [x.view(*shape, *x.shape[1:]).transpose(0, 1) for x in (rows.observation, rows.action, weight)]

    def loss(at: Parameters, observation: torch.Tensor, action: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        logp = torch.log_softmax(functional_call(network, at, (observation,))[0], dim=-1)
        return -(logp.gather(-1, action[:, None]).squeeze(-1) * weight).sum()

    gradient = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0, 0), chunk_size=COLUMNS_AT_ONCE)
    sums = gradient(point(network), *by_column)
    return torch.cat([g.flatten(1) for g in sums.values()], dim=1).cpu().numpy(), valid.sum(axis=0)
