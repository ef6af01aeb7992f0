"""The surrogate on held-out rows after one step along a gradient: the same rows, order and steps for every gradient."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from rl_gns.learn.held_out import HeldOut, direction, log_probs, of_actions, point
from rl_gns.learn.ppo import surrogate
from rl_gns.noise.line import Level, search

FIRST_STEP = 0.1
"""Length of the first step that is tried, in weights (the search doubles or halves it from there)."""


class HeldOutSurrogate:
    """Mean surrogate loss -min(ratio A, clip(ratio) A) of each held-out group at theta - eps x direction."""

    def __init__(self, network: nn.Module, held: HeldOut, clip_range: float):
        self._network, self._clip_range, self._rows = network, clip_range, held.rows
        self._start, self._pieces = point(network), list(held.pieces())
        with torch.no_grad():
            self._old = [of_actions(log_probs(network, self._start, rows), rows) for _, rows in self._pieces]

    @torch.no_grad()
    def after(self, gradient: np.ndarray, eps: float) -> np.ndarray:
        """[K] float64, relative to no step (which is what makes small steps comparable); `gradient` [P]."""
        along = direction(self._network, gradient)
        at = {name: value - eps * along[name] for name, value in self._start.items()}
        losses = np.zeros(len(self._rows))
        for (group, rows), old in zip(self._pieces, self._old, strict=True):
            ratio = (of_actions(log_probs(self._network, at, rows), rows) - old).double().exp()
            change = surrogate(ratio, rows.advantage, self._clip_range) + rows.advantage
            losses += np.bincount(group, change.cpu().numpy(), minlength=len(losses))
        return losses / self._rows

    def level(
        self, gradients: np.ndarray, batch_size: float, start: float | None, leave_one_out: np.ndarray | None = None
    ) -> Level | None:
        """The search along `gradients` [D, P] of `batch_size` env steps each; see `search`."""
        norm = float(np.linalg.norm(gradients, axis=1).mean())
        if norm == 0:
            return None
        first = start if start is not None else FIRST_STEP / norm
        return search(lambda d, e: self.after(gradients[d], e), batch_size, len(gradients), first, leave_one_out)
