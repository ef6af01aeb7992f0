"""SIGTERM as a notice: spot machines and batch systems give some seconds between it and SIGKILL, 10 s at least as is
supposed here. The rollout under way is finished, with its evaluation, where that ends in time, else given up, and a
checkpoint is written."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

FINISH_SECONDS = 4.0
"""The rollout under way may go on so long (a guess); the rest of the 10 s is for the checkpoint, and for Ray to end:
0.3 s for a Nature CNN with Adam, and 1 to 2 s."""
HELD_SECONDS = 0.05
"""So often is looked whether what must not be interrupted has ended (a choice)."""


class Terminated(BaseException):
    """SIGTERM, as an exception that lets files be closed."""


class Notice:
    """Whether SIGTERM has come; a call asks."""

    def __init__(self) -> None:
        self._given = self._heard = self._held = False

    def __call__(self) -> bool:
        """Once this is true, nothing is interrupted any more."""
        if self._given:
            self._heard = True  # an alarm that has rung already is none
            signal.setitimer(signal.ITIMER_REAL, 0)
        return self._given

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Inside, nothing is given up: what is on its way to the disk gets there. A second SIGTERM ends it."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def _take(self, number: int, frame: Any) -> None:
        if self._given:
            raise Terminated
        self._given = True
        signal.signal(signal.SIGALRM, self._give_up)
        signal.setitimer(signal.ITIMER_REAL, FINISH_SECONDS)

    def _give_up(self, number: int, frame: Any) -> None:
        if self._held:
            signal.setitimer(signal.ITIMER_REAL, HELD_SECONDS)
        elif not self._heard:
            raise Terminated


def raise_terminated(number: int, frame: Any) -> None:
    """A signal's handler."""
    raise Terminated


@contextlib.contextmanager
def noticing() -> Iterator[Notice]:
    """Inside, SIGTERM is a notice; a second one ends the process at once."""
    notice, alarm = Notice(), signal.getsignal(signal.SIGALRM)
    before = signal.signal(signal.SIGTERM, notice._take)
    try:
        yield notice
    finally:
        signal.signal(signal.SIGTERM, before)
        if notice():
            signal.signal(signal.SIGALRM, alarm)
