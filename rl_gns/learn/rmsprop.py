"""RMSProp as A2C has always used it, which is not the one of torch."""

from __future__ import annotations

from collections.abc import Iterable

import torch


class RMSProp(torch.optim.Optimizer):
    """v <- alpha v + (1 - alpha) g^2;  w <- w - lr g / sqrt(v + eps), with v = 1 at the start.

    That of TensorFlow 1, so of OpenAI Baselines' A2C, which McCandlish et al. 2018 (A.4.2) adapted. Torch's adds eps to
    the root and starts at v = 0: with eps = 1e-5 and a gradient clipped to a norm of 0.5 over 1.7 million weights, its
    first steps are ten times the sign of the gradient, and later ones up to 300 times as long as these, where
    sqrt(eps) = 0.003 rules. Beginning at 1, v takes ln(1e5) / (1 - alpha) = 1,150 steps to fall to eps: a warm-up.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], lr: float, alpha: float, eps: float):
        super().__init__(parameters, {"lr": lr, "alpha": alpha, "eps": eps})

    @torch.no_grad()
    def step(self) -> None:
        """One step of every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)

    def _move(self, parameter: torch.Tensor, gradient: torch.Tensor, group: dict[str, float]) -> None:
        slot = self.state[parameter]
        if not slot:
            slot["square_avg"] = torch.ones_like(parameter)
        v = slot["square_avg"]
        v.mul_(group["alpha"]).addcmul_(gradient, gradient, value=1 - group["alpha"])
        parameter.addcdiv_(gradient, (v + group["eps"]).sqrt_(), value=-group["lr"])
