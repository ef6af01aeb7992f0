"""Two-armed bandits, whose gradient noise scale is known in closed form: the instrument's calibration weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs import world
from envs.streams import NoiseStreams


@dataclass(frozen=True)
class Arms:
    """What the two arms pay: at env step t, mean[arm] + gain[arm] x, with x the normal draw of block t // echo."""

    mean: tuple[float, float]
    """Mean reward of each arm."""
    gain: tuple[float, float]
    """Signed standard deviation of each arm's reward: opposite signs make one arm lose what the other gains."""
    end_probability: tuple[float, float] = (0.0, 0.0)
    """Probability that the pull of each arm ends the episode."""
    echo: int = 1
    """Env steps for which one draw x holds."""


ARMS = {
    "Bandit": Arms((1.0, 0.5), (1.0, 1.0)),
    "EpisodicBandit": Arms((1.0, 0.5), (1.0, 1.0), end_probability=(0.5, 0.05)),
    "EchoedBandit": Arms((0.5, -0.5), (1.0, -1.0), echo=16),
}
"""By world. EpisodicBandit: which rows are masked depends on what the policy did. EchoedBandit: the negative control,
whose noise scale is `echo` times what its transitions, taken as independent, would show."""


class BanditWorld:
    """N bandits with the constant observation [1.0]; after an episode's end comes an autoreset row, as in any world.

    Column n's noise at env step t is a function of (seed n, t) alone: no column can shift another's stream.
    """

    def __init__(self, n_columns: int, seeds: Sequence[int], arms: Arms) -> None:
        self._noise = NoiseStreams(world.checked_seeds(seeds, n_columns))
        self._arms = arms
        self.n_columns = n_columns
        self.n_actions = 2
        self.frame_shape = (1,)
        self.frame_dtype = np.dtype(np.float32)
        self.frame_stack = 1
        self.reset()

    def reset(self) -> np.ndarray:
        """Env step 0 of every stream; see `World`."""
        self._step = 0
        self._ended = np.zeros(self.n_columns, dtype=bool)
        self.episode_start = np.ones(self.n_columns, dtype=bool)
        return self._observation()

    def step(self, action: np.ndarray) -> world.Transition:
        """One pull in every column; see `World`."""
        arm = world.checked_actions(action, self.n_columns, self.n_actions)
        normal, uniform = self._noise.at(self._step // self._arms.echo)
        self._step += 1
        started = self._ended
        raw_reward = np.where(started, 0.0, np.take(self._arms.mean, arm) + np.take(self._arms.gain, arm) * normal)
        self._ended = ~started & (uniform < np.take(self._arms.end_probability, arm))
        self.episode_start = started.copy()
        reward, never = raw_reward.astype(np.float32), np.zeros(self.n_columns, dtype=bool)
        return world.Transition(
            self._observation(), reward, reward.copy(), self._ended.copy(), never, ~started, started
        )

    def scatter(self, rng: np.random.Generator, max_steps: int) -> tuple[np.ndarray, int]:
        """Desynchronise the columns; see `World`."""
        return world.scatter(self, self._restart, rng, max_steps)

    def state(self) -> dict[str, Any]:
        """How far the streams are, and who ended; see `World`."""
        return {"step": self._step, "ended": self._ended.copy(), "episode_start": self.episode_start.copy()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a saved state; see `World`."""
        self._step = int(state["step"])
        self._ended = np.array(state["ended"], dtype=bool)
        self.episode_start = np.array(state["episode_start"], dtype=bool)

    def close(self) -> None:
        """Nothing to give back."""

    def _restart(self, columns: np.ndarray) -> np.ndarray:
        self._ended = self._ended & ~columns
        self.episode_start = self.episode_start | columns
        return self._observation()

    def _observation(self) -> np.ndarray:
        return np.ones((self.n_columns, 1), dtype=np.float32)


def true_noise_scale(policy_logits: np.ndarray, value: float, arms: Arms = ARMS["Bandit"]) -> tuple[float, float]:
    """(signal_sq, noise_trace) of a bandit for a softmax policy whose two logits are its parameters.

    With psi_a = e_a - pi and the advantage A = reward - value (gamma = 0), one valid env step's gradient is
    y = (mean_a + gain_a x - value) psi_a, where x ~ N(0, 1), so that

        G             = E[y]        = sum_a pi_a (mean_a - value) psi_a,               signal_sq = |G|^2
        K             = dE[y|x]/dx  = sum_a pi_a gain_a psi_a
        tr Cov(y)     = sum_a pi_a (gain_a^2 + (mean_a - value)^2) |psi_a|^2 - |G|^2
        tr Cov(y, y') = |K|^2       for two env steps that share x (their actions are independent), else 0
        noise_trace   = tr Cov(y) + (echo - 1) |K|^2                                   per valid env step.

    Exact for segments of whole echo blocks: T a multiple of `echo`, and as many env steps before the first segment
    (scatter 0, burn-in a multiple). The ends of EpisodicBandit change nothing: they say nothing of the next reward.

    With gain = (s, -s), mean = (m, -m), equal logits and value 0 (a fresh `linear` network), psi_1 = -psi_0, so every
    row of a block has the gradient (m + s x) psi_0 whatever arm was pulled: one transition echoed. Then tr Cov(y) =
    |K|^2 and noise_trace is exactly `echo` times tr Cov(y), which is that of the same arms with echo = 1. Transitions
    shuffled over R rows before they are grouped show tr Cov(y) (R - echo) / (R - 1) instead.
    """
    logits = np.asarray(policy_logits, dtype=np.float64)
    policy = np.exp(logits - logits.max())
    policy /= policy.sum()
    advantage, gain = np.array(arms.mean) - value, np.array(arms.gain)
    score = np.eye(2) - policy
    gradient, echoed = (policy * advantage) @ score, (policy * gain) @ score
    signal_sq = float(gradient @ gradient)
    row_trace = float((policy * (gain**2 + advantage**2)) @ np.square(score).sum(axis=1)) - signal_sq
    return signal_sq, row_trace + (arms.echo - 1) * float(echoed @ echoed)
