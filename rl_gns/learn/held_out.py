"""Held-out rollouts: the rows on which curvature and the line search are judged, by groups of whole columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from rl_gns.learn.batch import Batch, Rows

Parameters = dict[str, torch.Tensor]
"""Name -> tensor, in the network's order: a point, or a direction, in the space of its weights."""


@dataclass(frozen=True)
class HeldOut:
    """Rollouts of one frozen policy that no measured gradient comes from."""

    batches: Sequence[Batch]
    """At least one; column n is in group n mod K of each."""
    n_groups: int
    """K."""
    micro_batch: int
    """Rows in one forward pass."""

    @property
    def rows(self) -> np.ndarray:
        """[K] valid env steps of each group."""
        return sum(np.bincount(group, minlength=self.n_groups) for group, _ in self.pieces()).astype(np.float64)

    def pieces(self) -> Iterator[tuple[np.ndarray, Rows]]:
        """(group of each row [R], the rows), in a fixed order."""
        for batch in self.batches:
            valid = batch.valid_rows()
            for index in np.split(valid, range(self.micro_batch, len(valid), self.micro_batch)):
                yield index % batch.n_columns % self.n_groups, batch.rows(index)


def point(network: nn.Module) -> Parameters:
    """The network's weights, detached."""
    return {name: p.detach() for name, p in network.named_parameters()}


def direction(network: nn.Module, flat: np.ndarray) -> Parameters:
    """`flat` [P] in the shapes of the network's parameters, float32."""
    shapes = {name: p for name, p in network.named_parameters()}
    pieces = np.split(flat, np.cumsum([p.numel() for p in shapes.values()])[:-1])
    return {
        name: torch.from_numpy(piece.astype(np.float32)).view(p.shape).to(p.device)
        for (name, p), piece in zip(shapes.items(), pieces, strict=True)
    }


def log_probs(network: nn.Module, at: Parameters, rows: Rows) -> torch.Tensor:
    """[R, A] in float32 whatever the run's precision: differences between nearby points must not be rounded away."""
    return torch.log_softmax(functional_call(network, at, (rows.observation,))[0], dim=-1)


def of_actions(log_probs: torch.Tensor, rows: Rows) -> torch.Tensor:
    """[R] of the actions that were taken."""
    return log_probs.gather(-1, rows.action[:, None]).squeeze(-1)
