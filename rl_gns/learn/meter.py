"""The gradient noise scale of any training step in torch, from the gradients that it computes anyway.

    meter = NoiseScaleMeter(model.parameters())
    for inputs, targets in micro_batches:
        loss(model(inputs), targets).backward()
        meter.micro_batch(len(inputs))
    scale = meter.step()  # before gradients are clipped or unscaled
    optimizer.step()
    optimizer.zero_grad()

Under DistributedDataParallel the groups are ranks x micro-batches, with or without `no_sync`, and every rank gets the
same NoiseScale.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np
import torch
import torch.distributed as dist

from rl_gns.noise.moments import norms_signal_trace
from rl_gns.noise.scale import pool_series
from rl_gns.records import NoiseScale

ROUNDING = 1e-3
"""A step's summed gradient may differ from the sum of its micro-batches by this share of their norms (seen on one
coordinate, the sum of all elements). Chosen: float32 rounds to about 1e-6 of it, a forgotten zero_grad is about 1."""
WINDOW_STEPS = 200
"""Chosen: at least 24 steps are needed for 8 blocks, and over too many the model is no longer the same."""


class NoiseScaleMeter:
    """B_simple in samples, from J = ranks x micro-batches independent groups a step, pooled over the newest steps.

    A hook sees each micro-batch's gradient d_k before it is added up (and before DistributedDataParallel averages it),
    keeps |d_k|^2 alone, and returns nothing: training is bitwise the same. `.grad` gives |sum_k d_k|^2 once a step.
    `norms_signal_trace` does the rest, so no gradient is stored or sent. Cost: two reductions over each gradient, with
    one parameter's gradient in float64 at a time; 8 + 24 (micro-batches + 1) bytes a step and rank on the wire.

    `reduction` says whether a micro-batch's loss is the `mean` or the `sum` over its samples, times any constant that
    is the same for all; signal_sq and noise_trace carry the constant's square, B_simple does not feel it. `window`:
    steps that are pooled (None: all). `process_group`: DistributedDataParallel's, by default the default one.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        confidence: float = 0.95,
        *,
        reduction: Literal["mean", "sum"] = "mean",
        window: int | None = WINDOW_STEPS,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        self._parameters = [p for p in parameters if p.requires_grad]
        _check_options(len(self._parameters), confidence, reduction, window)
        self.skipped = 0
        """Steps left out because a gradient was not finite."""
        self._confidence, self._reduction, self._group = confidence, reduction, process_group
        self._device = self._parameters[0].device
        self._series: deque[tuple[float, float, float, int, int]] = deque(maxlen=window)
        self._step = 0
        self._rows: list[tuple[torch.Tensor, int]] = []
        self._clear()
        self._hooks = [p.register_hook(self._hook(i)) for i, p in enumerate(self._parameters)]

    def micro_batch(self, n_samples: int) -> None:
        """Call after each micro-batch's one backward pass: its gradient was the mean (or sum) over `n_samples`."""
        if not self._arrivals:
            raise RuntimeError("micro_batch() without a backward pass since the last one")
        if max(self._arrivals.values()) > 1:
            raise RuntimeError("two backward passes before one micro_batch(): add the losses, or call it after each")
        if n_samples != int(n_samples) or n_samples < 1:
            raise ValueError(f"n_samples must be a whole number from 1 on, got {n_samples}")
        self._rows.append((self._now, int(n_samples)))
        self._clear()

    def step(self) -> NoiseScale | None:
        """Call once a step, after its last `micro_batch` and before clipping, unscaling or `optimizer.step()`.

        Returns the noise scale pooled over the window; None while every step had a gradient that was not finite.
        ValueError for fewer than two groups; RuntimeError where `.grad` is not the sum of the micro-batches.
        """
        if self._arrivals:
            raise RuntimeError("a backward pass without its micro_batch() before step()")
        total, rows = self._gathered()
        self._rows, self._step = [], self._step + 1
        if len(rows) < 2:
            raise ValueError(f"{len(rows)} micro-batches in the step, all ranks together: at least 2 are needed")
        if np.isfinite(rows).all() and np.isfinite(total).all():
            _check_sum(total, rows)
            self._add(total, rows)
        else:
            self.skipped += 1
        return self._pooled()

    def close(self) -> None:
        """Take the hooks off the parameters."""
        for hook in self._hooks:
            hook.remove()

    def _clear(self) -> None:
        self._arrivals: dict[int, int] = {}
        self._now = torch.zeros(2, dtype=torch.float64, device=self._device)

    def _hook(self, index: int) -> Callable[[torch.Tensor], None]:
        def see(gradient: torch.Tensor) -> None:
            self._arrivals[index] = self._arrivals.get(index, 0) + 1
            self._now += self._square_and_sum(gradient.detach())

        return see

    def _square_and_sum(self, gradient: torch.Tensor) -> torch.Tensor:
        square = torch.linalg.vector_norm(gradient, dtype=torch.float64).square()
        return torch.stack([square, gradient.sum(dtype=torch.float64)]).to(self._device)

    def _gathered(self) -> tuple[np.ndarray, np.ndarray]:
        """([|sum d|^2, sum of its elements], [J, 3] rows of all ranks, in the order of the ranks)."""
        total = torch.zeros(2, dtype=torch.float64, device=self._device)
        for parameter in self._parameters:
            if parameter.grad is not None:
                total += self._square_and_sum(parameter.grad)
        samples = torch.tensor([[0], *([n] for _, n in self._rows)], dtype=torch.float64, device=self._device)
        mine = torch.cat([torch.stack([total, *(seen for seen, _ in self._rows)]), samples], dim=1)
        ranks = self._all_ranks(mine)
        average = float(len(ranks))  # what DistributedDataParallel divided the sum over ranks by
        return ranks[0][0, :2] * [average**2, average], np.concatenate([rank[1:] for rank in ranks])

    def _all_ranks(self, mine: torch.Tensor) -> list[np.ndarray]:
        if not (dist.is_available() and dist.is_initialized()):
            return [mine.cpu().numpy()]
        n_ranks = dist.get_world_size(self._group)
        lengths = [torch.zeros(1, dtype=torch.int64, device=self._device) for _ in range(n_ranks)]
        dist.all_gather(lengths, torch.tensor([len(mine)], device=self._device), group=self._group)
        longest = max(int(length) for length in lengths)
        padded = torch.cat([mine, mine.new_zeros(longest - len(mine), 3)])
        gathered = [torch.empty_like(padded) for _ in range(n_ranks)]
        dist.all_gather(gathered, padded, group=self._group)
        return [rank[: int(length)].cpu().numpy() for rank, length in zip(gathered, lengths, strict=True)]

    def _add(self, total: np.ndarray, rows: np.ndarray) -> None:
        samples = rows[:, 2]
        weights = samples if self._reduction == "sum" else np.ones(len(rows))
        signal_sq, noise_trace = norms_signal_trace(rows[:, 0], total[0], samples, weights)
        self._series.append((signal_sq, noise_trace, samples.sum(), len(rows), self._step))

    def _pooled(self) -> NoiseScale | None:
        if not self._series:
            return None
        signal_sq, noise_trace, samples, n_groups, steps = map(np.array, zip(*self._series, strict=True))
        return pool_series(
            signal_sq,
            noise_trace,
            samples,
            n_groups=int(n_groups.min()),
            part="total",
            confidence=self._confidence,
            first_version=int(steps[0]) - 1,
            last_version=int(steps[-1]) - 1,
        )


def _check_sum(total: np.ndarray, rows: np.ndarray) -> None:
    expected, scale = rows[:, 1].sum(), np.sqrt(rows[:, 0]).sum()
    too_long = math.sqrt(total[0]) > (1 + ROUNDING) * scale
    if too_long or abs(total[1] - expected) > ROUNDING * scale:
        raise RuntimeError(
            "the step's .grad is not the sum of its micro-batches: zero_grad() before the first one, step() before "
            "clipping or unscaling, and let DistributedDataParallel synchronise (no no_sync) in the last one"
        )


def _check_options(n_parameters: int, confidence: float, reduction: str, window: int | None) -> None:
    if not n_parameters:
        raise ValueError("parameters: none of them requires a gradient")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
    if window is not None and window < 1:
        raise ValueError(f"window must be at least 1 step or None, got {window}")
