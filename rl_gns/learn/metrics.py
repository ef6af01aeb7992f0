"""Metrics in which a gradient's noise can be weighed: layers, Adam's, the policy's Fisher matrix, a plain Hessian.

Curvature comes from held-out rows, in float32, and only ever as g_i' M g_j: M itself is never formed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from rl_gns.learn.gradients import GroupGradients
from rl_gns.learn.held_out import HeldOut, direction, log_probs, of_actions, point
from rl_gns.noise.metric import MetricGrams


def layers(network: nn.Module) -> dict[str, slice]:
    """Parameter tensor -> where it lies in a flat gradient [P]."""
    sizes = {name: p.numel() for name, p in network.named_parameters()}
    ends = np.cumsum(list(sizes.values()))
    return {name: slice(int(end - size), int(end)) for (name, size), end in zip(sizes.items(), ends, strict=True)}


def optimizer_scale(optimizer: torch.optim.Optimizer) -> np.ndarray | None:
    """[P] float64 D = sqrt(v) + eps of an optimizer that has taken steps; None of one that has not.

    Adam: v is the second moment with its bias corrected, exp_avg_sq / (1 - beta2^steps). RMSprop: v is square_avg.
    """
    pieces = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            slot = optimizer.state.get(parameter)
            if not slot:
                return None
            v = slot.get("exp_avg_sq", slot.get("square_avg")).detach().double().cpu().numpy().ravel()
            if "exp_avg_sq" in slot:
                v = v / (1 - group["betas"][1] ** float(slot["step"]))
            pieces.append(np.sqrt(v) + group["eps"])
    return np.concatenate(pieces)


def minibatch_scale(
    gradients: Sequence[GroupGradients], minibatches: int, max_grad_norm: float, eps: float
) -> np.ndarray:
    """[P] float64 D = sqrt(v) + eps, v the mean square of the total gradients of minibatches, clipped as in training.

    Each rollout's J groups make `minibatches` minibatches (at most J) of whole columns; 0 clips nothing.
    """
    square, count = np.zeros(gradients[0].policy.shape[1]), 0
    for each in gradients:
        total = (each.policy + each.rest).double().cpu().numpy()
        for groups in np.array_split(np.arange(len(total)), min(minibatches, len(total))):
            g = np.average(total[groups], axis=0, weights=each.env_steps[groups])
            norm = float(np.linalg.norm(g))
            square += (g * min(1.0, max_grad_norm / norm if max_grad_norm and norm else 1.0)) ** 2
            count += 1
    return np.sqrt(square / count) + eps


def fisher_grams(network: nn.Module, gradients: np.ndarray, held: HeldOut) -> MetricGrams:
    """g_i' F g_j of `gradients` [J, P], F the Fisher matrix of the policy: the mean over rows of J'(diag p - p p')J,
    J the Jacobian of the logits; the Gauss-Newton matrix of KL(pi || pi_new) at pi_new = pi.

    As a Gram matrix of features sqrt(p_a) (u_a - p . u) with u = J g: never negative.
    """
    at = point(network)
    directions = [direction(network, g) for g in gradients]
    sums = np.zeros((held.n_groups, len(gradients), len(gradients)))
    for group, rows in held.pieces():
        with torch.no_grad():
            features = torch.stack([_fisher_features(network, at, d, rows.observation) for d in directions])
        wide = features.double().cpu().numpy()
        for k in np.unique(group):
            mine = wide[:, group == k].reshape(len(gradients), -1)
            sums[k] += mine @ mine.T
    return MetricGrams(sums, held.rows)


def _fisher_features(
    network: nn.Module, at: dict[str, torch.Tensor], along: dict[str, torch.Tensor], observation: torch.Tensor
) -> torch.Tensor:
    logits, change = torch.func.jvp(lambda p: functional_call(network, p, (observation,))[0], (at,), (along,))
    p = torch.softmax(logits, dim=-1)
    return p.sqrt() * (change - (p * change).sum(dim=-1, keepdim=True))


def hessian_grams(network: nn.Module, gradients: np.ndarray, held: HeldOut) -> MetricGrams:
    """g_i' H g_j of `gradients` [J, P], H the Hessian of the surrogate's mean loss -ratio A over the held-out rows, at
    ratio 1, where no row is clipped. H may have any sign."""
    start = point(network)
    directions = [direction(network, g) for g in gradients]
    flat = torch.stack([torch.cat([v.flatten() for v in d.values()]) for d in directions])
    sums = np.zeros((held.n_groups, len(gradients), len(gradients)))
    for group, rows in held.pieces():
        at = {name: value.clone().requires_grad_() for name, value in start.items()}
        logp = of_actions(log_probs(network, at, rows), rows)
        losses = -(logp - logp.detach()).exp() * rows.advantage
        for k in np.unique(group):
            loss = losses[torch.from_numpy(group == k).to(losses.device)].sum()
            slope = torch.autograd.grad(loss, list(at.values()), create_graph=True, allow_unused=True)
            products = torch.stack([_hessian_product(slope, list(at.values()), d) for d in directions])
            sums[k] += (flat.double() @ products.double().T).cpu().numpy()
    return MetricGrams((sums + sums.transpose(0, 2, 1)) / 2, held.rows)


def _hessian_product(
    slope: Sequence[torch.Tensor | None], at: list[torch.Tensor], along: dict[str, torch.Tensor]
) -> torch.Tensor:
    """[P] H times a direction, by differentiating slope . direction; parameters without a slope give zeros."""
    there = zip(slope, along.values(), strict=True)
    inner = sum((s * v).sum() for s, v in there if s is not None)
    products = zip(torch.autograd.grad(inner, at, retain_graph=True, allow_unused=True), at, strict=True)
    return torch.cat([torch.zeros_like(p).flatten() if h is None else h.flatten() for h, p in products])
