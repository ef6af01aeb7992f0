"""Signal across rollouts: group gradients averaged over a fading window before they are multiplied.

Rollout t ended at E_t env steps of training, with N_t valid env steps in J groups of mean gradients g_tj. With weights
w_t = N_t exp(-(E - E_t) / window), W = sum_t w_t, and the window's means m_j = sum_t w_t g_tj / W:

    signal_sq        = (|sum_j m_j|^2 - sum_j |m_j|^2) / (J (J - 1))          -> |sum_t w_t G_t / W|^2
    within_signal_sq = sum_t w_t signal_sq_t / W   (`gram_signal_trace`)      -> sum_t w_t |G_t|^2 / W
    noise_trace      = sum_t w_t noise_trace_t / W                            -> sum_t w_t tr(Sigma_t) / W
    coherence        = signal_sq / within_signal_sq: 1 where the gradient stands still, the squared length of its
                       weighted mean direction where it turns

Every group has the same weights, so E m_j = sum_t w_t G_t / W for each, however its N_tj vary; m_i and m_j (i != j)
share no column, so their noise is independent however long a column's own persists; hence E[m_i . m_j] is the target.
Products within one group, |m_j|^2, hold the noise of its columns and what of it persists, and are left out. While
noise dominates the error of signal_sq falls as 1/n in n rollouts, that of within_signal_sq as 1/sqrt(n).

One thing remains. A rollout that is trained on moves the policy that collects the next, so its noise e_s enters later
gradients, and the mean of signal_sq is off by 2 sum_(s<t) w_s w_t E[e_s . G_t] / W^2. For plain SGD at rate eta with
Hessian H each E[e_s . G_t] is about -eta tr(H Sigma) / B: nothing while the policy hardly moves, but of the order of
|G|^2 itself at the rate that is best in a convex bowl. Products within one rollout are free of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rl_gns.noise.moments import mean_of_pairs
from rl_gns.records import Part

NUMBERS = ("weight", "weight_sq", "spread", "newest", "ended_at")


@dataclass(frozen=True)
class WindowEstimate:
    """What a window says of one part; `deleted` holds the same three numbers with one group left out."""

    signal_sq: float
    """gradient^2: of the window's mean gradient; unbiased, may be negative."""
    within_signal_sq: float
    """gradient^2: mean over rollouts of |G_t|^2, far noisier."""
    noise_trace: float
    """gradient^2 x env steps: mean over rollouts, per env step."""
    deleted: np.ndarray
    """[J, 3]: (signal_sq, within_signal_sq, noise_trace) without group j, for the jackknife."""
    env_steps: float
    """W^2 / sum_t w_t^2 / N_t: equally weighted env steps whose mean would be as noisy."""
    n_rollouts: float
    """W^2 / sum_t w_t^2: rollouts likewise."""
    newest_share: float
    """Of the weight: that of the rollouts since the batch size was last changed."""
    window_env_steps: float

    @property
    def values(self) -> np.ndarray:
        """[3]: signal_sq, within_signal_sq, noise_trace."""
        return np.array([self.signal_sq, self.within_signal_sq, self.noise_trace])


class DecayedMoments:
    """The sums of one window; memory 2 x J x K float64, with K coordinates a gradient."""

    def __init__(self, window_env_steps: float) -> None:
        self.window_env_steps = window_env_steps
        self.weight = self.weight_sq = self.spread = self.newest = 0.0
        self.ended_at = 0.0
        self._sums: dict[str, np.ndarray] = {}
        self._within: dict[str, np.ndarray] = {}

    def add(
        self,
        gradients: Mapping[str, np.ndarray],
        within: Mapping[str, np.ndarray],
        env_steps: float,
        at_env_steps: float,
        begins_anew: bool = False,
    ) -> None:
        """A rollout of N_t = `env_steps` that ended at E_t = `at_env_steps`.

        `gradients` {'policy', 'rest'} -> [J, K]; `within` part -> [J + 1, 2]: its (signal_sq, noise_trace) from all
        groups, then without group 0, 1, ... `begins_anew`: the first one after a change of the batch size.
        """
        fade = math.exp((self.ended_at - at_env_steps) / self.window_env_steps) if self.weight else 0.0
        self.weight = fade * self.weight + env_steps
        self.weight_sq = fade**2 * self.weight_sq + env_steps**2
        self.spread = fade**2 * self.spread + env_steps
        self.newest = (0.0 if begins_anew else fade * self.newest) + env_steps
        self.ended_at = float(at_env_steps)
        for sums, new in ((self._sums, gradients), (self._within, within)):
            for part, values in new.items():
                sums[part] = fade * sums[part] + env_steps * values if part in sums else env_steps * values

    def estimate(self, part: Part) -> WindowEstimate:
        """The statistics of one part (the module's formulas), and each with one group deleted."""
        gram = self._gram(part) / self.weight**2
        signal_sq, deleted = mean_of_pairs(gram)
        within = self._within[part] / self.weight
        return WindowEstimate(
            signal_sq=signal_sq,
            within_signal_sq=float(within[0, 0]),
            noise_trace=float(within[0, 1]),
            deleted=np.column_stack([deleted, within[1:]]),
            env_steps=self.weight**2 / self.spread,
            n_rollouts=self.weight**2 / self.weight_sq,
            newest_share=self.newest / self.weight,
            window_env_steps=self.window_env_steps,
        )

    def _gram(self, part: Part) -> np.ndarray:
        sums = self._sums["policy"] + self._sums["rest"] if part == "total" else self._sums[part]
        return sums @ sums.T

    def state(self) -> dict[str, Any]:
        """Everything: numbers, and arrays of 2 x J x K float64."""
        numbers = {name: getattr(self, name) for name in NUMBERS}
        arrays = {"sums": dict(self._sums), "within": dict(self._within)}
        return {"window_env_steps": self.window_env_steps, "numbers": numbers, **arrays}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> DecayedMoments:
        """The window that `state()` described; later results are the same to the bit."""
        moments = cls(state["window_env_steps"])
        for name in NUMBERS:
            setattr(moments, name, state["numbers"][name])
        moments._sums = {part: np.array(values) for part, values in state["sums"].items()}
        moments._within = {part: np.array(values) for part, values in state["within"].items()}
        return moments
