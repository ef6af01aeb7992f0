"""What `--chaos` does inside a rollout actor, to its own process and to its own block."""

from __future__ import annotations

import dataclasses
import os
import signal
import time

import numpy as np

from rl_gns.chaos import strike
from rl_gns.config import RunConfig
from rl_gns.segments import SegmentBlock

HANG_SECONDS = 86_400.0
"""Beyond every patience of `watch`."""


def struck(block: SegmentBlock, config: RunConfig) -> SegmentBlock:
    """The block as it was played, or with a NaN in it; or no return at all."""
    played = (block.collector_id, block.generation, block.policy_version, block.wave)
    match strike(config.chaos, config.seed, played) if config.chaos.asked() else None:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stall":
            time.sleep(HANG_SECONDS)
        case "nan":
            return dataclasses.replace(block, value=np.full_like(block.value, np.nan))
    return block
