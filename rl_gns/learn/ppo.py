"""The PPO loss as three sums over rows, kept apart so that the noise scale can look at each."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rl_gns.config import LearnerConfig
from rl_gns.learn.batch import Rows


@dataclass(frozen=True)
class LossSums:
    """Sums over R rows; divide by the rows of the whole minibatch to get its loss."""

    policy: torch.Tensor
    """scalar: sum of -min(ratio A, clip(ratio) A) (Schulman et al. 2017, eq. 7)."""
    value: torch.Tensor
    """scalar: sum of (V - target)^2 / 2, before value_coef."""
    entropy: torch.Tensor
    """scalar, nats."""
    kl: torch.Tensor
    """scalar, nats: sum of (ratio - 1) - ln ratio, an unbiased estimate of KL(collecting || current)."""
    clipped: torch.Tensor
    """scalar: rows whose ratio left [1 - clip, 1 + clip]."""
    ratio_error: torch.Tensor
    """scalar: max |ratio - 1|."""


def loss_sums(logits: torch.Tensor, value: torch.Tensor, rows: Rows, config: LearnerConfig) -> LossSums:
    """The loss terms of R rows from `logits` [R, A] and `value` [R]; clip_range = 0 means no clipping."""
    log_probs = torch.log_softmax(logits, dim=-1)
    logp = log_probs.gather(-1, rows.action[:, None]).squeeze(-1)
    log_ratio = logp - rows.logp
    ratio = log_ratio.exp()
    return LossSums(
        policy=surrogate(ratio, rows.advantage, config.clip_range).sum(),
        value=_value_loss(value, rows, config),
        entropy=-(log_probs.exp() * log_probs).sum(),
        kl=(ratio.detach() - 1 - log_ratio.detach()).sum(),
        clipped=((ratio.detach() - 1).abs() > config.clip_range).sum() * (config.clip_range > 0),
        ratio_error=(ratio.detach() - 1).abs().max(),
    )


def surrogate(ratio: torch.Tensor, advantage: torch.Tensor, clip_range: float) -> torch.Tensor:
    """[R] -min(ratio A, clip(ratio) A); clip_range = 0 means no clipping."""
    gain = ratio * advantage
    if clip_range > 0:
        gain = torch.minimum(gain, ratio.clamp(1 - clip_range, 1 + clip_range) * advantage)
    return -gain


def _value_loss(value: torch.Tensor, rows: Rows, config: LearnerConfig) -> torch.Tensor:
    error = (value - rows.target) ** 2
    if config.value_clip and config.clip_range > 0:
        held = rows.value + (value - rows.value).clamp(-config.clip_range, config.clip_range)
        error = torch.maximum(error, (held - rows.target) ** 2)
    return 0.5 * error.sum()


def rest(sums: LossSums, config: LearnerConfig) -> torch.Tensor:
    """The loss beside the policy's: value_coef x value - entropy_coef x entropy."""
    return config.value_coef * sums.value - config.entropy_coef * sums.entropy
