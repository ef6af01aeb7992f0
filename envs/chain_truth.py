"""Exact mean and covariance of the gradient that PPO takes from a column's segment of the Chain: numpy alone.

The policy is a tabular softmax with logits [S, A], the critic any value[s]. A segment is T rows of one column. With
psi_t = e_(s,a) - sum_b pi(b|s) e_(s,b), valid_t = 0 on autoreset rows, d_t = 1 where row t terminated and c_t = 0 where
it terminated or was truncated (else 1), generalised advantage estimation gives, from the segment's end back,

    A_t = r_t + gamma V(s_{t+1}) (1 - d_t) - V(s_t) + gamma lambda c_t A_{t+1},                        A_T = 0
    S_t = valid_t (A_t - mean) / std psi_t + S_{t+1},      N_t = valid_t + N_{t+1},              S_T = N_T = 0.

Given what happens at row t, the vector X_t = (1, A_t, N_t, S_t) is linear in X_{t+1}, and its first two entries alone
are multiplied: X_t = X_{t+1} + B_t (1, A_{t+1}). So E[X_t X_t' | h_t], for every hidden state h of the column's Markov
chain (state and age of the episode, or an autoreset row), follows exactly from row t + 1 by a sum over all outcomes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.chain import (
    ENDS,
    EPISODE_LIMIT_ENV_STEPS,
    N_ACTIONS,
    N_STATES,
    REWARD_MEAN,
    REWARD_STD,
    START_STATE,
    transition_probabilities,
)

AUTORESET = N_STATES * EPISODE_LIMIT_ENV_STEPS
"""Hidden state of an autoreset row; state s at age k (env steps since the start) is s x limit + k."""
N_HIDDEN = AUTORESET + 1
N_PARAMETERS = N_STATES * N_ACTIONS
N_OUTCOMES = N_ACTIONS * (N_STATES + 1) * 2
"""Of a row: an action, where it leads, and the sign of the reward's deviation."""


@dataclass(frozen=True)
class KnownNoise:
    """The truth about one policy; a group's gradient g_k is its mean over N_k valid env steps."""

    signal_sq: float
    """|G|^2."""
    noise_trace: float
    """tr Sigma per valid env step, Sigma = Cov(S - G N) / E[N] of one segment: what sum_k N_k |g_k - g|^2 / (J - 1)
    tends to with many columns a group (the number of valid rows is random, so g_k is a ratio; of relative order one
    over the columns a group)."""
    long_run_trace: float
    """noise_trace plus the covariances between the segments of one column, at all lags, both ways."""
    mean_gradient: np.ndarray
    """[S, A] G = E[S] / E[N]: of the objective, so the loss's is -G."""
    policy_gradient: np.ndarray
    """[S, A] without the bias of GAE: E[A*(s, a) psi] / std over the valid rows' own states, A* the true advantage at
    this gamma of the process without its time limit (which bootstraps), plus the entropy bonus's. It is the gradient of
    w . V*, V*[s] the true discounted value, at fixed weights w = (I - gamma P') (law of the valid rows' states)."""
    valid_share: float
    """E[N] / T: the part of the rows that is valid."""
    covariance: np.ndarray
    """[S A, S A] Sigma per valid env step, whose trace is noise_trace."""
    start_trace: float
    """The part of noise_trace that the hidden state at a segment's start decides: tr Cov(E[S - G N | h_0]) / E[N]."""
    state_share: np.ndarray
    """[S] law of the valid rows' states."""

    @property
    def b_simple(self) -> float:
        """noise_trace / signal_sq, env steps."""
        return self.noise_trace / self.signal_sq


@dataclass(frozen=True)
class _Outcomes:
    """Everything that one row can bring: O outcomes a hidden state."""

    target: np.ndarray
    """[H, O] hidden state of the next row."""
    chance: np.ndarray
    """[H, O] probability given the hidden state of the row."""
    push: np.ndarray
    """[H, O, 3 + P, 2]: B."""

    def kernel(self) -> np.ndarray:
        """[H, H] transition probabilities from row to row."""
        kernel = np.zeros((N_HIDDEN, N_HIDDEN))
        np.add.at(kernel, (np.arange(N_HIDDEN)[:, None], self.target), self.chance)
        return kernel


def true_noise_scale(
    policy_logits: np.ndarray,
    value: np.ndarray,
    gamma: float,
    gae_lambda: float,
    segment_steps: int,
    normaliser: tuple[float, float] = (0.0, 1.0),
    entropy_coef: float = 0.0,
    updated_logits: np.ndarray | None = None,
) -> KnownNoise:
    """The truth for `policy_logits` [S, A] and the critic `value` [S], segments of T = `segment_steps` rows that start
    anywhere in the column's stationary chain.

    `normaliser`: the fixed (mean, std) that scale advantages; (0, 1) is none. `entropy_coef`: of a bonus on the entropy
    of every valid row, which belongs to the rest, so for policy + rest without a value loss. `updated_logits`: where
    the unclipped surrogate sum ratio A is differentiated, once the policy has moved on from the one that collected;
    fixed, not chosen by the same rows (policy_gradient stays that of `policy_logits`). ValueError for wrong shapes.
    """
    logits, critic = np.asarray(policy_logits, np.float64), np.asarray(value, np.float64)
    updated = logits if updated_logits is None else np.asarray(updated_logits, np.float64)
    _check(logits, critic, updated, segment_steps)
    outcomes = _outcomes(_softmax(logits), _softmax(updated), critic, gamma, gae_lambda, normaliser, entropy_coef)
    law = _stationary(outcomes.kernel())
    moments = _segment_moments(outcomes, segment_steps, np.zeros((N_HIDDEN, 0)))
    env_steps, sums = law @ moments[:, 0, 2], law @ moments[:, 0, 3:]
    gradient = sums / env_steps
    centre = np.hstack([np.zeros((N_PARAMETERS, 2)), -gradient[:, None], np.eye(N_PARAMETERS)])
    covariance = centre @ np.tensordot(law, moments, 1) @ centre.T / env_steps
    trace, from_start = float(np.trace(covariance)), moments[:, 0] @ centre.T
    later = _later_segments(outcomes.kernel(), law, segment_steps, from_start)
    crossed = np.tensordot(law, _segment_moments(outcomes, segment_steps, later), 1)[: 3 + N_PARAMETERS]
    lags = float(np.trace(centre @ crossed[:, 3 + N_PARAMETERS :]) / env_steps)
    return KnownNoise(
        signal_sq=float(gradient @ gradient),
        noise_trace=trace,
        long_run_trace=trace + 2 * lags,
        mean_gradient=gradient.reshape(N_STATES, N_ACTIONS),
        policy_gradient=_policy_gradient(_softmax(logits), law, gamma, normaliser, entropy_coef),
        valid_share=float(env_steps / segment_steps),
        covariance=covariance,
        start_trace=float(law @ np.square(from_start).sum(axis=1) / env_steps),
        state_share=_state_share(law),
    )


def _outcomes(
    policy: np.ndarray,
    updated: np.ndarray,
    value: np.ndarray,
    gamma: float,
    gae_lambda: float,
    normaliser: tuple[float, float],
    entropy_coef: float,
) -> _Outcomes:
    """By hidden state; an autoreset row has one outcome, written `N_OUTCOMES` times."""
    state, age, action, to, sign = (
        axis.ravel() for axis in np.indices((N_STATES, EPISODE_LIMIT_ENV_STEPS, N_ACTIONS, N_STATES + 1, 2))
    )
    cut = (to == ENDS) | (age == EPISODE_LIMIT_ENV_STEPS - 1)
    reward = REWARD_MEAN[state, action] + REWARD_STD[state] * (2 * sign - 1)
    error = reward + gamma * np.append(value, 0.0)[to] - value[state]
    carry = gamma * gae_lambda * ~cut
    score = _in_state(state, np.eye(N_ACTIONS)[action] - updated[state])
    score *= (updated / policy)[state, action][:, None] / _std(normaliser)
    bonus = _in_state(state, entropy_coef * _entropy_gradient(updated)[state])
    push = np.zeros((N_HIDDEN * N_OUTCOMES, 3 + N_PARAMETERS, 2))
    valid, autoreset = slice(len(state)), slice(len(state), None)
    push[valid, 1], push[valid, 2, 0] = np.stack([error, carry - 1], axis=1), 1.0
    push[valid, 3:, 0], push[valid, 3:, 1] = (error - normaliser[0])[:, None] * score + bonus, carry[:, None] * score
    push[autoreset, 1, 1] = -1.0  # its own advantage is nobody's: the row before it ended
    following = np.where(cut, AUTORESET, to * EPISODE_LIMIT_ENV_STEPS + age + 1)
    chance = policy[state, action] * transition_probabilities()[state, action, to] / 2
    by_state = (N_HIDDEN, N_OUTCOMES)
    return _Outcomes(
        target=np.append(following, [START_STATE * EPISODE_LIMIT_ENV_STEPS] * N_OUTCOMES).reshape(by_state),
        chance=np.append(chance, [1 / N_OUTCOMES] * N_OUTCOMES).reshape(by_state),
        push=push.reshape(*by_state, 3 + N_PARAMETERS, 2),
    )


def _in_state(state: np.ndarray, by_action: np.ndarray) -> np.ndarray:
    """[K, P]: `by_action` [K, A] at the parameters of `state` [K], zeros elsewhere."""
    return (np.eye(N_STATES)[state][:, :, None] * by_action[:, None, :]).reshape(-1, N_PARAMETERS)


def _segment_moments(outcomes: _Outcomes, segment_steps: int, carried: np.ndarray) -> np.ndarray:
    """[H, D, D] E[X_0 X_0' | h_0]; X = (1, A, N, S, c), where c = `carried[h_T]` is a function of the state in which
    the next segment starts. Row 0 holds E[X_0 | h_0]."""
    last = np.zeros((N_HIDDEN, 3 + N_PARAMETERS + carried.shape[1]))
    last[:, 0], last[:, 3 + N_PARAMETERS :] = 1.0, carried
    push = np.zeros((N_HIDDEN, N_OUTCOMES, last.shape[1], 2))
    push[:, :, : 3 + N_PARAMETERS] = outcomes.push
    weighted = (outcomes.chance[..., None, None] * push).transpose(0, 2, 1, 3).reshape(*last.shape, -1)
    kernel, moments = outcomes.kernel(), last[:, :, None] * last[:, None, :]
    for _ in range(segment_steps):
        after = moments[:, :2][outcomes.target]
        cross = weighted @ after.reshape(N_HIDDEN, -1, last.shape[1])
        square = weighted @ (after[..., :2] @ push.swapaxes(2, 3)).reshape(N_HIDDEN, -1, last.shape[1])
        moments = np.tensordot(kernel, moments, 1) + cross + cross.transpose(0, 2, 1) + square
    return moments


def _later_segments(kernel: np.ndarray, law: np.ndarray, segment_steps: int, mean: np.ndarray) -> np.ndarray:
    """[H, P] sum over k >= 0 of E[Y_k | segment 0 starts in h], for `mean` [H, P] = E[Y_0 | h], which `law` averages
    to 0: (I - K + 1 law')^-1 mean, with K = kernel^T the chain from segment start to segment start."""
    between = np.linalg.matrix_power(kernel, segment_steps)
    return np.linalg.solve(np.eye(N_HIDDEN) - between + law, mean)


def _stationary(kernel: np.ndarray) -> np.ndarray:
    """[H] the law that `kernel` keeps; unreachable hidden states get 0."""
    equations = np.vstack([kernel.T - np.eye(N_HIDDEN), np.ones(N_HIDDEN)])
    return np.linalg.lstsq(equations, np.append(np.zeros(N_HIDDEN), 1.0), rcond=None)[0]


def _policy_gradient(
    policy: np.ndarray, law: np.ndarray, gamma: float, normaliser: tuple[float, float], entropy_coef: float
) -> np.ndarray:
    """[S, A]; sum_a pi_a A*_a psi_a = pi A*, since the advantages of a state average to 0."""
    advantage = policy * _true_advantage(policy, gamma) / _std(normaliser)
    return _state_share(law)[:, None] * (advantage + entropy_coef * _entropy_gradient(policy))


def _state_share(law: np.ndarray) -> np.ndarray:
    """[S] of the valid rows, from the law [H] of all."""
    states = law[:AUTORESET].reshape(N_STATES, EPISODE_LIMIT_ENV_STEPS).sum(axis=1)
    return states / states.sum()


def _true_advantage(policy: np.ndarray, gamma: float) -> np.ndarray:
    """[S, A] Q*(s, a) - V*(s), by solving the Bellman equation of the process without its time limit."""
    moves = transition_probabilities()[..., :N_STATES]
    step, reward = np.einsum("sa,sat->st", policy, moves), (policy * REWARD_MEAN).sum(axis=1)
    value = np.linalg.solve(np.eye(N_STATES) - gamma * step, reward)
    return REWARD_MEAN + gamma * moves @ value - value[:, None]


def _entropy_gradient(policy: np.ndarray) -> np.ndarray:
    """[S, A] of each state's entropy H = -sum pi ln pi by its logits: -pi (ln pi + H)."""
    surprise = -np.log(policy)
    return policy * (surprise - (policy * surprise).sum(axis=1, keepdims=True))


def _softmax(logits: np.ndarray) -> np.ndarray:
    weight = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weight / weight.sum(axis=1, keepdims=True)


def _std(normaliser: tuple[float, float]) -> float:
    return normaliser[1] + 1e-8  # as in the learner's own (A - mean) / (std + 1e-8)


def _check(logits: np.ndarray, value: np.ndarray, updated: np.ndarray, segment_steps: int) -> None:
    shapes = [array.shape for array in (logits, updated, value)]
    if shapes != [(N_STATES, N_ACTIONS)] * 2 + [(N_STATES,)]:
        raise ValueError(f"logits must be [{N_STATES}, {N_ACTIONS}] and value [{N_STATES}], got shapes {shapes}")
    if segment_steps < 1:
        raise ValueError(f"segment_steps must be at least 1, got {segment_steps}")
