"""The optimizers, and their state as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

OPTIMIZER_EPS = 1e-5
"""Of both optimizers (that of the Baselines' A2C and PPO)."""


def make_optimizer(name: str, network: torch.nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """`adam`, `rmsprop` or `sgd` over all of the network's weights."""
    if name == "rmsprop":
        return torch.optim.RMSprop(network.parameters(), lr=learning_rate, alpha=0.99, eps=OPTIMIZER_EPS)
    if name == "sgd":
        return torch.optim.SGD(network.parameters(), lr=learning_rate)
    return torch.optim.Adam(network.parameters(), lr=learning_rate, eps=OPTIMIZER_EPS, fused=True)


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Parameter index -> slot -> array; hyperparameters come from the config."""
    slots = optimizer.state_dict()["state"]
    return {str(i): {k: torch.as_tensor(v).cpu().numpy() for k, v in slot.items()} for i, slot in slots.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Go on from `optimizer_state`."""
    plain = optimizer.state_dict()
    plain["state"] = {int(i): {k: torch.from_numpy(np.array(v)) for k, v in s.items()} for i, s in state.items()}
    optimizer.load_state_dict(plain)
