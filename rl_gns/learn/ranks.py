"""One process among R that train together: rendezvous, sums over all of them, and a look at whether they are alike.

Tensors are summed by gloo on a CPU, by NCCL on GPUs. A sum is the same bits on every rank, so ranks that start alike
and step on summed gradients stay alike; `check_alike` sees where they did not (different CPUs may round differently).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

STALL_SECONDS = 300.0
"""Silence of a rank that has nothing to compute (a guess)."""
SLOWEST_ENV_STEPS_PER_SECOND = 200.0
"""At which a rank still counts as alive: a guess, a fifth of one slow core's forward and backward passes of the Nature
CNN in float32. The ranks meet once in a probe, so a slower one keeps the others waiting for as long as it takes."""
SIOCGIFADDR = 0x8915
"""Linux: the address of a network interface."""


class RanksDiffer(RuntimeError):
    """The ranks' weights are no longer the same bits."""


def stall_seconds(env_steps: int) -> float:
    """How long a rank with a share of so many env steps may keep others waiting before they give it up."""
    return STALL_SECONDS + env_steps / SLOWEST_ENV_STEPS_PER_SECOND


def listener(host: str) -> socket.socket:
    """A listening socket of rank 0 at `host` alone, on any free port."""
    return socket.create_server((host, 0))


class Ranks:
    """The collective operations; every rank must make the same calls in the same order."""

    def __init__(
        self,
        rank: int,
        n_ranks: int,
        host: str,
        port: int,
        own_host: str,
        stall_seconds: float,
        device: str = "cpu",
        listening: socket.socket | None = None,
    ):
        """Meet the others at host:port, where rank 0 has its `listener`; nothing is bound but on the interface of this
        rank's own address `own_host`. OSError where no interface has it. A rank that keeps another one waiting for
        `stall_seconds` is an error there."""
        self.rank, self.n_ranks, self._device = rank, n_ranks, device
        backend = "nccl" if device == "cuda" else "gloo"
        _bind_to(own_host, backend)
        timeout = timedelta(seconds=stall_seconds)
        fd = None if listening is None else listening.detach()
        store = dist.TCPStore(host, port, n_ranks, rank == 0, timeout, wait_for_workers=False, master_listen_fd=fd)
        dist.init_process_group(backend, store=store, rank=rank, world_size=n_ranks, timeout=timeout)

    def close(self) -> None:
        """Leave the others."""
        dist.destroy_process_group()

    def add(self, tensor: torch.Tensor) -> None:
        """Replace it by the sum over ranks."""
        dist.all_reduce(tensor)

    def sum(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """The same shape, float64."""
        total = torch.as_tensor(np.asarray(values, np.float64), device=self._device)
        self.add(total)
        return total.cpu().numpy()

    def interleaved(self, own: np.ndarray) -> np.ndarray:
        """[R K, ...] float64 of every rank's `own` [K, ...]: entry r + R k is rank r's k-th."""
        whole = np.zeros((self.n_ranks * len(own), *own.shape[1:]))
        whole[self.rank :: self.n_ranks] = own
        return self.sum(whole)

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace every `.grad` by its sum over ranks; a rank without rows counts as zero."""
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        self.add(flat)
        pieces = flat.split([p.numel() for p in parameters])
        for p, gradient, piece in zip(parameters, gradients, pieces, strict=True):
            p.grad = gradient.copy_(piece.view_as(p))

    def check_alike(self, network: nn.Module) -> None:
        """RanksDiffer where the sum of a parameter's bits, read as integers, is not the same on all ranks."""
        names, parameters = zip(*network.named_parameters(), strict=True)
        low = torch.stack([p.detach().contiguous().view(torch.int32).sum(dtype=torch.int64) for p in parameters])
        high = low.clone()
        dist.all_reduce(low, dist.ReduceOp.MIN)
        dist.all_reduce(high, dist.ReduceOp.MAX)
        if differ := [name for name, same in zip(names, (low == high).tolist(), strict=True) if not same]:
            raise RanksDiffer(f"the weights of {self.n_ranks} learners are no longer the same: {differ[0]}")


def _bind_to(own_host: str, backend: str) -> None:
    """Have gloo or NCCL use the interface of that IPv4 address, unless the user has named one."""
    interfaces, variable = _interfaces(), f"{backend.upper()}_SOCKET_IFNAME"
    if own_host in interfaces:
        os.environ.setdefault(variable, interfaces[own_host])
    elif interfaces and variable not in os.environ:
        raise OSError(f"no network interface has {own_host}, only {', '.join(interfaces)}; {variable} can name one")


def _interfaces() -> dict[str, str]:
    """IPv4 address -> name of its network interface; none where the system does not tell."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # an interface without an address
                answer = fcntl.ioctl(asking, SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                found[socket.inet_ntoa(answer[20:24])] = name
    return found
