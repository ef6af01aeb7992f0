"""RMSProp against its formula in numpy, against torch's, and through a checkpoint."""

import numpy as np
import pytest
import torch
from tiny import CARTPOLE, config, trainer

from rl_gns.learn.rmsprop import RMSProp

GRADIENTS = np.array([[1e-3, -2.0, 0.0], [4e-3, 0.5, 1e-4], [-1e-3, 0.1, -3e-4]])


def moved(optimizer, weights):
    for gradient in GRADIENTS:
        weights.grad = torch.tensor(gradient)
        optimizer.step()
    return weights.detach().numpy()


def test_steps_are_the_formulas():
    weights = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    w, v = np.zeros(3), np.ones(3)
    for gradient in GRADIENTS:
        v = 0.99 * v + 0.01 * gradient**2
        w = w - 7e-4 * gradient / np.sqrt(v + 1e-5)
    assert moved(RMSProp([weights], lr=7e-4, alpha=0.99, eps=1e-5), weights) == pytest.approx(w, rel=1e-12)


def test_torchs_own_would_go_much_further():
    """The negative control: the same three small gradients, the same rate, alpha and eps."""
    ours, theirs = (torch.zeros(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    near = moved(RMSProp([ours], lr=7e-4, alpha=0.99, eps=1e-5), ours)
    far = moved(torch.optim.RMSprop([theirs], lr=7e-4, alpha=0.99, eps=1e-5), theirs)
    assert np.abs(far[0]) > 100 * np.abs(near[0])


def test_the_warm_up_is_as_long_as_told():
    weights = torch.zeros(1, requires_grad=True)
    optimizer = RMSProp([weights], lr=1.0, alpha=0.99, eps=1e-5)
    weights.grad, steps = torch.zeros(1), 0
    while not steps or float(optimizer.state[weights]["square_avg"]) > 1e-5:
        optimizer.step()
        steps += 1
    assert steps == pytest.approx(1150, abs=10)


def test_its_average_survives_a_checkpoint():
    settings = config(CARTPOLE, {"learner": {"optimizer": "rmsprop"}})
    first = trainer(settings)
    records = first.run()
    for _ in range(2):
        next(records)
    second = trainer(settings)
    second.learner.restore(first.learner.state())
    kept, restored = (each.learner.state()["optimizer"] for each in (first, second))
    assert kept and all(np.array_equal(restored[i]["square_avg"], kept[i]["square_avg"]) for i in kept)
