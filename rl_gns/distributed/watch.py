"""How long an actor may be silent before it is named, and before it is given up.

    an ordinary block   max(30 s, 20 x the median of the last 64)
    a collector's first 120 s + 1 s for every 20 env steps of scatter, burn-in and block; also while no median is known
    a new actor         600 s, or 120 s where no CPU is free for it and other actors could do its work

    under chaos         max(5 s, 20 medians); a first block 20 s + 1 s for every 200 env steps

It is named at half of that, so an ordinary block within max(15 s, 10 medians). The floors are guesses on the side of
patience: a needless replacement costs a burn-in, a late one only time. Measured on Zen 4: Pong collects 1,400 env steps
a second on one core (a block of 8 columns x 128 in 0.7 s), and an actor starts in 5 s, or in 15 s on a busy machine.
Under chaos stalls are asked for, and their user lives to see them given up.
What is counted is time that the driver spent waiting: one that was itself stopped (Ctrl-Z, a sleeping laptop) blames
nobody.
"""

from __future__ import annotations

import statistics
import time
from collections import deque

LOOK_SECONDS = 1.0
"""The driver wakes this often while it waits."""
FLOOR_SECONDS = 30.0
MEDIANS = 20.0
FIRST_SECONDS = 120.0
FIRST_ENV_STEPS_PER_SECOND = 20.0
CHAOS_FLOOR_SECONDS = 5.0
CHAOS_FIRST_SECONDS = 20.0
CHAOS_FIRST_ENV_STEPS_PER_SECOND = 200.0
START_SECONDS = 600.0
UNPLACED_SECONDS = 120.0


class Clock:
    """Seconds spent waiting; a gap between two looks counts as two looks at most."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self.seconds = 0.0

    def look(self) -> float:
        """Move on to now, and return the seconds."""
        now = time.monotonic()
        self.seconds += min(now - self._last, 2 * LOOK_SECONDS)
        self._last = now
        return self.seconds


class Patience:
    """Seconds that a block may take, from those that recent blocks took."""

    def __init__(self, first_env_steps: int, chaos: bool = False):
        """`first_env_steps`: what a collector's first block takes, scatter and burn-in included, over its columns."""
        self._floor = CHAOS_FLOOR_SECONDS if chaos else FLOOR_SECONDS
        self._first = FIRST_SECONDS + first_env_steps / FIRST_ENV_STEPS_PER_SECOND
        if chaos:
            self._first = CHAOS_FIRST_SECONDS + first_env_steps / CHAOS_FIRST_ENV_STEPS_PER_SECOND
        self._recent: deque[float] = deque(maxlen=64)

    def took(self, seconds: float) -> None:
        """An ordinary block took this long."""
        self._recent.append(seconds)

    def seconds(self, first: bool) -> float:
        """The limit for a block: a collector's first one on its actor, or an ordinary one."""
        if first or not self._recent:
            return self._first
        return max(self._floor, MEDIANS * statistics.median(self._recent))
