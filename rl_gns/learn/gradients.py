"""From autograd to statistics: the mean gradient of each group of columns, and their dot products.

The probe runs before the first optimizer step, at the weights that collected the data. It reads gradients with
`torch.autograd.grad`, draws no random number and leaves no `.grad` behind, so training cannot feel it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from rl_gns.config import LearnerConfig
from rl_gns.learn.batch import Batch, Rows
from rl_gns.learn.model import autocast
from rl_gns.learn.ppo import loss_sums, rest

CHUNK = 1 << 18
"""Parameters per float64 product: 16 groups x 2 parts x 2^18 x 8 bytes = 67 MB at most."""


@dataclass(frozen=True)
class GroupGradients:
    """Mean gradients of J groups of columns, P parameters, float32, before any clipping."""

    policy: torch.Tensor
    """[J, P]."""
    rest: torch.Tensor
    """[J, P]: value and entropy, with their coefficients."""
    env_steps: np.ndarray
    """[J] int64: valid env steps averaged in each."""
    max_ratio_error: float
    control: np.ndarray
    """[J, D] float64: the synthetic gradients' means over the very same rows."""

    def parts(self) -> dict[str, np.ndarray]:
        """`policy` and `rest` as numpy arrays, for sums over rollouts."""
        return {"policy": self.policy.cpu().numpy(), "rest": self.rest.cpu().numpy()}


def column_groups(n_columns: int, n_groups: int) -> list[np.ndarray]:
    """At most J = `n_groups` disjoint sets of columns: column n is in group n mod J, however many there are.

    Where columns are added the old ones stay in their groups, so that sums over rollouts stay independent.
    """
    n_groups = min(n_groups, n_columns)
    return [np.arange(first, n_columns, n_groups) for first in range(n_groups)]


def rows_by_column(batch: Batch, n_groups: int) -> list[np.ndarray]:
    """The valid rows of J groups of whole columns."""
    return [batch.rows_of_columns(columns) for columns in column_groups(batch.n_columns, n_groups)]


def rows_shuffled(batch: Batch, n_groups: int, rng: np.random.Generator) -> list[np.ndarray]:
    """The valid rows in J random groups: transitions of one column fall apart, so that noise that they share looks like
    signal. Only for showing how far off that is."""
    return np.array_split(rng.permutation(batch.valid_rows()), min(n_groups, batch.n_columns))


def group_gradients(
    network: nn.Module, batch: Batch, groups: Sequence[np.ndarray], config: LearnerConfig, precision: str
) -> GroupGradients:
    """The policy's and the rest's mean gradient over the rows of each of J `groups`.

    Rows keep the ratio pi / pi_collector that they have, and nothing is clipped: where the collector computed in
    another precision the ratio makes up for actions drawn from a slightly different policy. Set to 1, it would add
    E[A (pi_collector - pi) ...], which every group shares: it reads as signal. `max_ratio_error` is max |ratio - 1|.
    """
    parameters = list(network.parameters())
    size = sum(p.numel() for p in parameters)
    sums = torch.zeros(2, len(groups), size, device=parameters[0].device)
    control = torch.zeros(len(groups), batch.columns["control"].shape[1], dtype=torch.float64, device=sums.device)
    worst = 0.0
    for j, index in enumerate(groups):
        for rows in micro_batches(batch, index, config.micro_batch):
            worst = np.maximum(worst, _add_gradients(network, rows, config, precision, parameters, sums[:, j]))
            control[j] += rows.control.double().sum(dim=0)
    env_steps = np.array([len(index) for index in groups])
    held = np.maximum(env_steps, 1)
    sums /= torch.from_numpy(held).to(sums)[:, None]
    return GroupGradients(sums[0], sums[1], env_steps, float(worst), control.cpu().numpy() / held[:, None])


def _add_gradients(
    network: nn.Module,
    rows: Rows,
    config: LearnerConfig,
    precision: str,
    parameters: list[nn.Parameter],
    into: torch.Tensor,
) -> float:
    with autocast(precision, rows.action.device.type):
        logits, value = network(rows.observation)
    terms = loss_sums(logits, value, rows, replace(config, clip_range=0.0))
    for part, loss in enumerate((terms.policy, rest(terms, config))):
        gradients = torch.autograd.grad(loss, parameters, retain_graph=part == 0, allow_unused=True)
        for view, gradient in zip(_views(into[part], parameters), gradients, strict=True):
            if gradient is not None:
                view += gradient
    return float(terms.ratio_error)


def _views(flat: torch.Tensor, parameters: list[nn.Parameter]) -> list[torch.Tensor]:
    """`flat` [P] seen as the parameters' shapes, in order."""
    pieces = flat.split([p.numel() for p in parameters])
    return [piece.view_as(p) for piece, p in zip(pieces, parameters, strict=True)]


def micro_batches(batch: Batch, index: np.ndarray, size: int) -> Iterator[Rows]:
    """The rows of `index` in pieces of at most `size`, in order."""
    for first in range(0, len(index), size):
        yield batch.rows(index[first : first + size])


def grams(gradients: GroupGradients) -> dict[str, np.ndarray]:
    """part -> [J, J] float64 dot products of the groups' mean gradients; total = policy + rest."""
    j = len(gradients.env_steps)
    product = np.zeros((2 * j, 2 * j))
    for first in range(0, gradients.policy.shape[1], CHUNK):
        pieces = [part[:, first : first + CHUNK] for part in (gradients.policy, gradients.rest)]
        wide = torch.cat(pieces).double()
        product += (wide @ wide.T).cpu().numpy()
    policy, cross, rest_ = product[:j, :j], product[:j, j:], product[j:, j:]
    return {"policy": policy, "rest": rest_, "total": policy + cross + cross.T + rest_}


def norms_dots(gradients: GroupGradients, share: np.ndarray, add: Callable[[torch.Tensor], None]) -> np.ndarray:
    """[J, 3, 2] float64 for policy, rest and total: |g_k|^2 and g_k . g of these J groups, where g is summed over more.

    `share` [J]: N_k / N, with N the env steps of all groups everywhere; `add` replaces this process's part of
    g = sum (N_k / N) g_k, in pieces of at most 3 x `CHUNK` float64, by its sum over all processes.
    """
    found = torch.zeros(len(share), 3, 2, dtype=torch.float64, device=gradients.policy.device)
    weights = torch.from_numpy(share).to(found)
    for first in range(0, gradients.policy.shape[1], CHUNK):
        policy, rest_ = (part[:, first : first + CHUNK].double() for part in (gradients.policy, gradients.rest))
        parts = torch.stack([policy, rest_, policy + rest_], dim=1)
        mean = torch.einsum("j,jpc->pc", weights, parts).contiguous()
        add(mean)
        found[..., 0] += parts.square().sum(dim=-1)
        found[..., 1] += (parts * mean).sum(dim=-1)
    return found.cpu().numpy()
