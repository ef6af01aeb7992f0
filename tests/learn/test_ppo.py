"""The PPO loss against hand-worked rows."""

import math

import pytest
import torch

from rl_gns.config import LearnerConfig
from rl_gns.learn.batch import Rows
from rl_gns.learn.ppo import loss_sums, rest


def rows(ratios, advantages, values=(0.0, 0.0), targets=(0.0, 0.0)):
    """Two rows under uniform logits over two actions, whose ratio to the collecting policy is given."""
    logp = torch.tensor([math.log(0.5 / r) for r in ratios])
    return Rows(
        observation=torch.zeros(2, 1),
        action=torch.tensor([0, 1]),
        logp=logp,
        value=torch.tensor(values),
        advantage=torch.tensor(advantages),
        target=torch.tensor(targets),
        control=torch.zeros(2, 0),
    )


def sums(which, value=(0.0, 0.0), **settings):
    return loss_sums(torch.zeros(2, 2), torch.tensor(value), which, LearnerConfig(**settings))


@pytest.mark.parametrize(
    ("ratios", "advantages", "clip", "loss", "clipped"),
    [
        ((1.5, 1.0), (2.0, 1.0), 0.2, -(1.2 * 2 + 1), 1),  # a good action, gain held at 1.2
        ((1.5, 1.0), (-2.0, 1.0), 0.2, -(1.5 * -2 + 1), 1),  # a bad one: the loss is not held
        ((0.5, 1.0), (-2.0, 1.0), 0.2, -(0.8 * -2 + 1), 1),  # a bad one, already rarer: held at 0.8
        ((1.5, 0.5), (2.0, 2.0), 0.0, -(1.5 * 2 + 0.5 * 2), 0),  # clip_range 0: never
    ],
)
def test_surrogate_by_hand(ratios, advantages, clip, loss, clipped):
    got = sums(rows(ratios, advantages), clip_range=clip)
    assert got.policy.item() == pytest.approx(loss)
    assert got.clipped.item() == clipped
    assert got.ratio_error.item() == pytest.approx(max(abs(r - 1) for r in ratios))
    assert got.kl.item() == pytest.approx(sum(r - 1 - math.log(r) for r in ratios), abs=1e-6)


def test_value_and_entropy_by_hand():
    which = rows((1.0, 1.0), (0.0, 0.0), values=(0.0, 0.0), targets=(1.0, 0.0))
    got = sums(which, value=(0.5, 2.0), clip_range=0.2)
    assert got.value.item() == pytest.approx(0.5 * (0.25 + 4.0))
    assert got.entropy.item() == pytest.approx(2 * math.log(2))
    assert rest(got, LearnerConfig(value_coef=0.5, entropy_coef=0.01)).item() == pytest.approx(
        0.5 * 2.125 - 0.01 * 2 * math.log(2)
    )


def test_clipped_value_takes_the_larger_error():
    """V moved from 0 to 0.5; held at 0.2 the error to 1 is 0.8, larger than 0.5. To 0 the free error is larger."""
    which = rows((1.0, 1.0), (0.0, 0.0), targets=(1.0, 0.0))
    got = sums(which, value=(0.5, 0.5), clip_range=0.2, value_clip=True)
    assert got.value.item() == pytest.approx(0.5 * (0.8**2 + 0.5**2))


def test_at_ratio_one_clipping_does_not_touch_the_gradient():
    """The probe's case: every ratio is exactly 1, where min() and clamp() tie."""
    gradients = []
    for clip in (0.0, 0.2):
        logits = torch.tensor([[0.3, -0.2], [0.1, 0.4]], requires_grad=True)
        which = rows((1.0, 1.0), (2.0, -1.0))
        logp = torch.log_softmax(logits.detach(), -1).gather(-1, which.action[:, None]).squeeze(-1)
        which = Rows(**{**vars(which), "logp": logp})
        loss_sums(logits, torch.zeros(2), which, LearnerConfig(clip_range=clip)).policy.backward()
        gradients.append(logits.grad)
    assert torch.equal(*gradients) and gradients[0].abs().sum() > 0
