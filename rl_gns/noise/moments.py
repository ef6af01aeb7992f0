"""Signal and noise of a gradient from the mean gradients of J disjoint groups of columns, at fixed weights.

Group k holds N_k valid env steps and their mean gradient g_k; N = sum_k N_k and g = sum_k (N_k / N) g_k. With
E g_k = G and Cov g_k = Sigma / N_k (Sigma: covariance per env step, long-run within a column),

    signal_sq   = (J |g|^2 - sum_k (N_k / N) |g_k|^2) / (J - 1)     unbiased for |G|^2, may be negative
    noise_trace = sum_k N_k |g_k - g|^2 / (J - 1)                   unbiased for tr(Sigma), per env step

which for equal groups are McCandlish et al. 2018, A.1, with the small norm averaged over all J groups. Both are
functions of the Gram matrix g_i . g_j alone, so J x J numbers are all that has to be kept of a rollout; and of the
norms |g_k|^2 and dots g_k . g, since |g|^2 = sum_k (N_k / N) g_k . g, so that 2 J numbers will do where each group's
gradient is on another learner and only their mean is sent. Leaving one group out needs no more. Products of two groups
(`mean_of_pairs`, `mean_cosine`) are in the Gram matrix alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rl_gns.records import PARTS, GroupMoments, Part

LARGEST_NORM_SQ = 1e280
"""Of a group's gradient; beyond it, sums over groups and env steps could overflow float64."""
CHUNK = 1 << 18
"""Parameters that are turned into float64 at a time."""


def group_moments(gradients: np.ndarray, env_steps: np.ndarray | float) -> GroupMoments:
    """What `pool` takes, from the mean gradients of J independent groups of your own training step.

    `gradients [J, P]`: one mean gradient a group, J >= 2, any real dtype, before clipping and before the optimizer;
    `env_steps`: env steps (or samples) in each group's mean, one number for all or [J]. ValueError for other shapes,
    for a NaN or an infinity, and for env steps that are not whole numbers from 1 on.
    """
    matrix = np.asarray(gradients)
    if matrix.ndim != 2 or len(matrix) < 2 or not matrix.shape[1] or matrix.dtype.kind not in "fiu":
        shape = f"{matrix.dtype} {list(matrix.shape)}"
        raise ValueError(f"gradients must be real numbers [J, P] with J >= 2 groups and P >= 1, got {shape}")
    steps = np.asarray(env_steps)
    if steps.shape not in ((), (len(matrix),)):
        raise ValueError(f"env_steps must be one number or [{len(matrix)}], got shape {list(steps.shape)}")
    steps = np.broadcast_to(steps, len(matrix))
    if steps.dtype.kind not in "fiu" or not ((steps >= 1) & (steps < 2**53) & (steps == np.floor(steps))).all():
        raise ValueError(f"env_steps must be whole numbers from 1 on, got {np.unique(steps)[:3].tolist()}")
    return GroupMoments(gram={"total": _gram(matrix)}, env_steps=steps.astype(np.int64))


def _gram(matrix: np.ndarray) -> np.ndarray:
    gram = np.zeros((len(matrix), len(matrix)))
    with np.errstate(over="ignore", invalid="ignore"):
        for first in range(0, matrix.shape[1], CHUNK):
            piece = matrix[:, first : first + CHUNK].astype(np.float64)
            gram += piece @ piece.T
    for group, norm_sq in enumerate(np.diagonal(gram).tolist()):
        if not norm_sq <= LARGEST_NORM_SQ:
            raise ValueError(f"the gradient of group {group} holds a NaN or is too large: |g|^2 = {norm_sq:g}")
    return gram


def gram_signal_trace(gram: np.ndarray, env_steps: np.ndarray) -> tuple[float, float]:
    """(signal_sq, noise_trace) of one rollout from `gram [J, J]`, g_i . g_j, and `env_steps [J]`, N_k.

    Units: gradient^2 and gradient^2 x env steps. Formulas in the module's docstring.
    """
    gram, steps = _checked(gram, env_steps, at_least=2)
    share = steps / steps.sum()
    return _signal_trace(share @ gram @ share, share @ np.diagonal(gram), steps)


def dots_signal_trace(norms_dots: np.ndarray, env_steps: np.ndarray) -> tuple[float, float]:
    """`gram_signal_trace` of the same gradients from `norms_dots [J, 2]`, |g_k|^2 and g_k . g."""
    norms_dots, steps = _checked_dots(norms_dots, env_steps, at_least=2)
    group_sq, mean_sq = (steps / steps.sum()) @ norms_dots
    return _signal_trace(mean_sq, group_sq, steps)


def _signal_trace(mean_sq: float, group_sq: float, steps: np.ndarray) -> tuple[float, float]:
    """From |g|^2 and sum_k (N_k / N) |g_k|^2."""
    n_groups = len(steps)
    signal_sq = (n_groups * mean_sq - group_sq) / (n_groups - 1)
    noise_trace = steps.sum() * (group_sq - mean_sq) / (n_groups - 1)
    return float(signal_sq), max(0.0, float(noise_trace))  # below zero by rounding alone


def norms_signal_trace(
    group_sq: np.ndarray, sum_sq: float, env_steps: np.ndarray, weights: np.ndarray
) -> tuple[float, float]:
    """(signal_sq, noise_trace) from squared norms alone, for J gradients d_k = w_k g_k that a step adds up.

        signal_sq   = (|sum_k d_k|^2 - sum_k |d_k|^2) / ((sum_k w_k)^2 - sum_k w_k^2)
        noise_trace = mean_k N_k (|d_k|^2 / w_k^2 - signal_sq)

    `group_sq [J]`: |d_k|^2; `sum_sq`: |sum_k d_k|^2; `env_steps [J]`: N_k; `weights [J]`: w_k > 0. Both are unbiased
    for any weights, and for equal N_k and w_k they are those of `gram_signal_trace`.
    """
    pairs = weights.sum() ** 2 - weights @ weights
    signal_sq = (sum_sq - group_sq.sum()) / pairs
    noise_trace = np.mean(env_steps * (group_sq / weights**2 - signal_sq))
    return float(signal_sq), float(noise_trace)


def signal_and_trace(moments: GroupMoments, part: Part = "policy") -> tuple[float, float]:
    """(signal_sq, noise_trace) of one part of one rollout's moments."""
    if moments.gram:
        return gram_signal_trace(moments.gram[part], moments.env_steps)
    return dots_signal_trace(moments.norms_dots[part], moments.env_steps)


def without_each(moments: GroupMoments, part: Part = "policy") -> np.ndarray:
    """[J, 2]: `signal_and_trace` with each group left out."""
    if moments.gram:
        return np.stack(leave_one_out(moments.gram[part], moments.env_steps), axis=1)
    return np.stack(dots_leave_one_out(moments.norms_dots[part], moments.env_steps), axis=1)


def leave_one_out(gram: np.ndarray, env_steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(signal_sq [J], noise_trace [J]): entry j is `gram_signal_trace` of the J - 1 groups other than j.

    With A = |sum_k N_k g_k|^2 and D = sum_k N_k |g_k|^2 over the groups that stay and N' their env steps:
    signal_sq = ((J-1) A/N'^2 - D/N') / (J-2) and noise_trace = (D - A/N') / (J-2).
    """
    gram, steps = _checked(gram, env_steps, at_least=3)
    return _left_out(np.diagonal(gram), gram @ steps, steps)


def dots_leave_one_out(norms_dots: np.ndarray, env_steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`leave_one_out` of the same gradients from `norms_dots [J, 2]`, |g_k|^2 and g_k . g."""
    norms_dots, steps = _checked_dots(norms_dots, env_steps, at_least=3)
    return _left_out(norms_dots[:, 0], norms_dots[:, 1] * steps.sum(), steps)


def _left_out(norms: np.ndarray, dots: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From |g_k|^2 [J] and g_k . sum_i N_i g_i [J]."""
    kept = steps.sum() - steps
    sum_sq = steps @ dots - 2 * steps * dots + steps**2 * norms
    weighted_norms = steps @ norms - steps * norms
    n_left = len(steps) - 1
    signal_sq = (n_left * sum_sq / kept**2 - weighted_norms / kept) / (n_left - 1)
    return signal_sq, (weighted_norms - sum_sq / kept) / (n_left - 1)


def mean_of_pairs(gram: np.ndarray) -> tuple[float, np.ndarray]:
    """(mean of gram[i, j] over i != j, [J] the same without group j): products of different groups alone."""
    n_groups, pairs = len(gram), gram.sum(axis=1) - np.diagonal(gram)
    deleted = (pairs.sum() - 2 * pairs) / max((n_groups - 1) * (n_groups - 2), 1)
    return float(pairs.sum() / (n_groups * (n_groups - 1))), deleted


def mean_cosine(gram: np.ndarray) -> float:
    """Mean cosine between the gradients of two different groups, a diagnostic: about 1 / (1 + B_simple / b).

    b is a group's env steps; from E[g_i . g_j] = |G|^2 and E|g_i|^2 = |G|^2 (1 + B_simple / b). NaN where a group's
    gradient is zero.
    """
    gram = np.asarray(gram, np.float64)
    norms = np.sqrt(np.diagonal(gram))
    if not norms.all():
        return float("nan")
    cosines = gram / np.outer(norms, norms)
    return float(cosines[~np.eye(len(gram), dtype=bool)].mean())


@dataclass(frozen=True)
class FrozenEstimate:
    """What `FrozenMoments.estimate` says of one part: means over every rollout of one frozen policy."""

    signal_sq: float
    """gradient^2: mean of s_i . s_j over pairs of groups i != j."""
    noise_trace: float
    """gradient^2 x env steps: within rollouts, mean over rollouts."""
    long_run_trace: float
    """gradient^2 x env steps: between groups, so it holds what persists in a column from rollout to rollout."""
    long_run_ratio: float
    """long_run_trace / noise_trace: 1 where successive rollouts of a column are independent."""
    deleted: np.ndarray
    """[J, 2] float64: (signal_sq, noise_trace) with group j left out of every rollout, for the jackknife."""


class FrozenMoments:
    """Gradient sums of J groups that keep their columns while the policy is frozen (memory: 2 J P float64).

    s_j = sum_r N_rj g_rj / sum_r N_rj over rollouts r. Products of different groups are free of noise bias over the
    whole measurement, so columns may persist, and the noise in signal_sq falls as 1/n in n rollouts, not 1/sqrt(n):

        signal_sq      = (|sum_j s_j|^2 - sum_j |s_j|^2) / (J (J-1))
        noise_trace    = mean over rollouts (weights: env steps) of `gram_signal_trace`
        long_run_trace = mean_j N_j (|s_j|^2 - signal_sq),  N_j = sum_r N_rj   (= n b (mean|s_j|^2 - signal_sq)
                         for n rollouts of b env steps a group)
    """

    def __init__(self) -> None:
        self.n_rollouts = 0
        self.group_env_steps = np.zeros(0)
        self._sums: dict[str, np.ndarray] = {}
        self._trace = dict.fromkeys(PARTS, 0.0)
        self._deleted_trace = {part: np.zeros(()) for part in PARTS}

    @property
    def n_groups(self) -> int:
        return len(self.group_env_steps)

    @property
    def env_steps(self) -> int:
        """Valid env steps of all groups in all rollouts."""
        return int(self.group_env_steps.sum())

    def add(self, gradients: Mapping[str, np.ndarray], gram: Mapping[str, np.ndarray], env_steps: np.ndarray) -> None:
        """One rollout: `gradients` {'policy', 'rest'} -> [J, P] group means, `gram` part -> [J, J], N_k [J]."""
        steps = np.asarray(env_steps, np.float64)
        self._check(gradients, gram, steps)
        rollout_steps = steps.sum()
        for part in PARTS:
            self._trace[part] += rollout_steps * gram_signal_trace(gram[part], steps)[1]
            self._deleted_trace[part] = self._deleted_trace[part] + rollout_steps * leave_one_out(gram[part], steps)[1]
        for part, matrix in gradients.items():
            _add_rows(self._sums[part], matrix, steps)
        self.group_env_steps = self.group_env_steps + steps
        self.n_rollouts += 1

    def estimate(self, part: Part = "policy") -> FrozenEstimate:
        """The statistics of one part, and each with one group deleted."""
        if not self.n_rollouts:
            raise ValueError("no rollout was added: nothing to estimate from")
        gram, n_env_steps = self._mean_gram(part), self.group_env_steps.sum()
        signal_sq, deleted_signal = mean_of_pairs(gram)
        noise_trace = self._trace[part] / n_env_steps
        long_run_trace = np.mean(self.group_env_steps * (np.diagonal(gram) - signal_sq))
        return FrozenEstimate(
            signal_sq=signal_sq,
            noise_trace=float(noise_trace),
            long_run_trace=float(long_run_trace),
            long_run_ratio=float(long_run_trace / noise_trace) if noise_trace > 0 else float("nan"),
            deleted=np.stack([deleted_signal, self._deleted_trace[part] / n_env_steps], axis=1),
        )

    def _mean_gram(self, part: Part) -> np.ndarray:
        policy, rest = self._sums["policy"], self._sums["rest"]
        if part == "total":
            cross = policy @ rest.T
            sums = policy @ policy.T + rest @ rest.T + cross + cross.T
        else:
            sums = self._sums[part] @ self._sums[part].T
        return sums / np.outer(self.group_env_steps, self.group_env_steps)

    def _check(self, gradients: Mapping[str, np.ndarray], gram: Mapping[str, np.ndarray], steps: np.ndarray) -> None:
        if set(gradients) != {"policy", "rest"} or set(gram) != set(PARTS):
            raise ValueError("gradients need the parts policy and rest, gram needs policy, rest and total")
        for part in PARTS:
            _checked(gram[part], steps, at_least=3)
        shape = gradients["policy"].shape
        if gradients["rest"].shape != shape or len(shape) != 2 or shape[0] != len(steps):
            raise ValueError(f"gradients must be [J, P] of one shape with J = {len(steps)}, got {shape}")
        if not self._sums:
            self._sums = {part: np.zeros(shape) for part in gradients}
            self.group_env_steps = np.zeros(len(steps))
        elif self._sums["policy"].shape != shape:
            raise ValueError(f"[J, P] must stay {self._sums['policy'].shape} while the policy is frozen, got {shape}")


def _add_rows(sums: np.ndarray, matrix: np.ndarray, steps: np.ndarray) -> None:
    row = np.empty(sums.shape[1])
    for j, n_env_steps in enumerate(steps):
        np.multiply(matrix[j], n_env_steps, out=row, dtype=np.float64)
        sums[j] += row


def _checked(gram: np.ndarray, env_steps: np.ndarray, at_least: int) -> tuple[np.ndarray, np.ndarray]:
    gram, steps = np.asarray(gram, np.float64), np.asarray(env_steps, np.float64)
    if steps.ndim != 1 or gram.shape != (len(steps), len(steps)):
        raise ValueError(f"gram must be [J, J] and env_steps [J], got {gram.shape} and {steps.shape}")
    _check_groups(gram, steps, at_least)
    return gram, steps


def _checked_dots(norms_dots: np.ndarray, env_steps: np.ndarray, at_least: int) -> tuple[np.ndarray, np.ndarray]:
    norms_dots, steps = np.asarray(norms_dots, np.float64), np.asarray(env_steps, np.float64)
    if steps.ndim != 1 or norms_dots.shape != (len(steps), 2):
        raise ValueError(f"norms_dots must be [J, 2] and env_steps [J], got {norms_dots.shape} and {steps.shape}")
    _check_groups(norms_dots, steps, at_least)
    return norms_dots, steps


def _check_groups(products: np.ndarray, steps: np.ndarray, at_least: int) -> None:
    if len(steps) < at_least:
        raise ValueError(f"{len(steps)} groups: this statistic needs at least {at_least}")
    if not (steps > 0).all():
        raise ValueError("every group needs at least one valid env step")
    if not np.isfinite(products).all():
        raise ValueError("the Gram matrix is not finite: a gradient overflowed")
