"""Actor-critic networks: `forward(observation) -> (logits [R, A], value [R])`, in float32 whatever the precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

Weights = dict[str, np.ndarray]
"""Parameter name -> float32 array: what is published to the collectors."""


class ActorCritic(nn.Module):
    """A trunk shared by a linear policy head and a linear value head."""

    def __init__(self, trunk: nn.Module, features: int, n_actions: int, bias: bool = True):
        super().__init__()
        self.trunk = trunk
        self.policy_head = nn.Linear(features, n_actions, bias=bias)
        self.value_head = nn.Linear(features, 1, bias=bias)

    def forward(self, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.trunk(observation).float()
        with torch.autocast(observation.device.type, enabled=False):
            return self.policy_head(features), self.value_head(features).squeeze(-1)


class SeparateActorCritic(nn.Module):
    """Two trunks, as is usual for vector observations: the value loss never touches the policy's weights."""

    def __init__(self, d: int, n_actions: int, width: int = 64):
        super().__init__()
        self.policy_trunk, self.policy_head = _mlp(d, width), nn.Linear(width, n_actions)
        self.value_trunk, self.value_head = _mlp(d, width), nn.Linear(width, 1)

    def forward(self, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.policy_head(self.policy_trunk(observation))
        return logits.float(), self.value_head(self.value_trunk(observation)).squeeze(-1).float()


class Pixels(nn.Module):
    """uint8 [R, C, H, W] to [0, 1] in the precision of the forward pass: frames stay bytes until here.

    On a CPU fp32 convolutions run 1.5 times faster on channels-last input, bf16 ones a little slower (Zen 4).
    """

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        device = frames.device.type
        half = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if half else torch.float32
        layout = torch.contiguous_format if half and device == "cpu" else torch.channels_last
        return frames.to(dtype, memory_format=layout).mul_(1 / 255)


def _mlp(d: int, width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(d, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh())


Layers = tuple[tuple[int, int, int], ...]
"""(filters, kernel size, stride) of each convolution."""

NATURE: Layers = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
"""Mnih et al. 2015."""
SMALL: Layers = ((16, 4, 2), (32, 4, 2), (32, 3, 2))
"""For 42 x 42. Nature's kernels would leave one pixel of it: with them Pong had not taken off by a million env steps
(seed 1 at a learning rate of 5e-4; -15.6 with seed 2 at 1e-3)."""


def _cnn(frame_shape: tuple[int, ...], stack: int, layers: Layers, hidden: int) -> nn.Module:
    """Those convolutions, and one hidden layer."""
    parts: list[nn.Module] = [Pixels()]
    channels = stack
    for filters, kernel, stride in layers:
        parts += [nn.Conv2d(channels, filters, kernel, stride=stride), nn.ReLU()]
        channels = filters
    convolutions = nn.Sequential(*parts, nn.Flatten())
    with torch.no_grad():
        features = convolutions(torch.zeros(1, stack, *frame_shape, dtype=torch.uint8)).shape[1]
    return nn.Sequential(convolutions, nn.Linear(features, hidden), nn.ReLU())


def make_network(name: str, frame_shape: tuple[int, ...], frame_stack: int, n_actions: int, seed: int) -> nn.Module:
    """The named network for observations of that shape; ValueError where they do not fit.

    Weights are orthogonal with gain sqrt 2, 0.01 for the policy head and 1 for the value head (the usual PPO
    details); `linear` starts at zero, so that its policy is uniform. The same seed gives the same bits, whatever the
    number of threads: a QR factorisation on two of them is another one.
    """
    pixels = len(frame_shape) == 2
    if name == "auto":
        name = "mlp" if not pixels else "nature" if min(frame_shape) >= 84 else "small"
    if pixels != (name in ("nature", "small")):
        wants = "nature or small" if pixels else "mlp or linear"
        raise ValueError(f"learner.network: {name!r} does not fit observations {frame_shape}; {wants} does")
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _initialised(_build(name, frame_shape, frame_stack, n_actions), zero=name == "linear")


def _build(name: str, frame_shape: tuple[int, ...], frame_stack: int, n_actions: int) -> nn.Module:
    if name == "nature":
        return ActorCritic(_cnn(frame_shape, frame_stack, NATURE, 512), 512, n_actions)
    if name == "small":
        return ActorCritic(_cnn(frame_shape, frame_stack, SMALL, 256), 256, n_actions)
    if name == "mlp":
        return SeparateActorCritic(frame_shape[0], n_actions)
    return ActorCritic(nn.Identity(), frame_shape[0], n_actions, bias=False)


def _initialised(network: nn.Module, zero: bool) -> nn.Module:
    for name, module in network.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            gain = {"policy_head": 0.01, "value_head": 1.0}.get(name, 2**0.5)
            nn.init.zeros_(module.weight) if zero else nn.init.orthogonal_(module.weight, gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


def get_weights(network: nn.Module) -> Weights:
    """The network's weights as float32 arrays of their own."""
    return {name: p.detach().cpu().numpy().copy() for name, p in network.state_dict().items()}


def set_weights(network: nn.Module, weights: Weights) -> None:
    """Load published weights; read-only arrays are copied."""
    network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})


def trunks_to_bf16(network: nn.Module) -> None:
    """Keep the trunks' weights in bf16, for inference under autocast; the heads stay in float32."""
    for name, child in network.named_children():
        if name.endswith("trunk"):
            child.to(torch.bfloat16)


def resolve_precision(precision: str, frame_shape: tuple[int, ...], device: str = "cpu") -> str:
    """`auto` as bf16 for pixels where the hardware multiplies bf16 natively, else fp32."""
    if precision != "auto":
        return precision
    if len(frame_shape) == 1:
        return "fp32"
    native = torch.cuda.is_bf16_supported() if device == "cuda" else torch.cpu._is_avx512_bf16_supported()
    return "bf16" if native else "fp32"


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """What is computed on one thread wherever it is hosted: inference, initial weights. The threads come back after."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def autocast(precision: str, device: str = "cpu") -> contextlib.AbstractContextManager:
    """The context that forward passes run in."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device, dtype=torch.bfloat16)
