"""Faults on purpose: how likely each is, and which blocks they strike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

STREAM = 7
"""First number of the spawn key: these draws come from no stream that a run's numbers come from."""
Strike = Literal["kill", "stall", "nan"]


@dataclass(frozen=True)
class ChaosConfig:
    """Faults on purpose, to see that a run survives them; `--chaos kill=0.01,stall=0.01,nan=0.001` for short. Each is
    a probability a block that a rollout actor (--actors 1 or more) is asked for."""

    kill: float = 0.0
    """The actor plays the block and kills its own process."""
    stall: float = 0.0
    """It plays the block and hangs, until it is given up: after 5 s or more, where without chaos it is 30 s."""
    nan: float = 0.0
    """It returns the block with a NaN in it."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value} is not in [0, 1]; the nearest is {1 if value > 1 else 0}")
        if (together := sum(vars(self).values())) > 1 + 1e-9:
            raise ValueError(f"{self} make {together:g}, more than 1; a block meets one fault at most")

    def __str__(self) -> str:
        return ",".join(f"{name}={value:g}" for name, value in self.asked().items())

    def asked(self) -> dict[str, float]:
        """Fault -> probability, of those that may strike; empty where chaos is off."""
        return {name: value for name, value in vars(self).items() if value > 0}


def strike(chaos: ChaosConfig, seed: int, block: tuple[int, int, int, int]) -> Strike | None:
    """What befalls a block, `(collector id, generation, policy version, wave)`: a function of these and of the run's
    seed alone, so that a run which is killed and goes on meets the same faults."""
    draw = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(STREAM, *block))).random()
    for name, probability in vars(chaos).items():
        if draw < probability:
            return name
        draw -= probability
    return None
