"""One rollout as its blocks arrive: each is copied to its place and let go, so that the frames are held once."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rl_gns.records import Fault
from rl_gns.segments import SegmentBlock


class ShortBatch(RuntimeError):
    """Fewer rows came than were asked for: an error, never a smaller batch."""


@dataclass(frozen=True)
class Collected:
    """One rollout as it arrived."""

    blocks: list[SegmentBlock]
    """One a wave and collector: by wave, then by collector id. Their frames are parts of one array."""
    late_blocks: int
    """Late or duplicate blocks that were dropped."""
    faults: tuple[Fault, ...] = ()
    """What went wrong with actors since the last rollout; none of it is in the blocks."""

    @property
    def replaced_actors(self) -> int:
        """Actors that a new one took the place of."""
        return sum(f.what in ("died", "stalled", "refused") for f in self.faults)

    @property
    def refused_blocks(self) -> int:
        """Blocks that were not what was asked for."""
        return sum(f.what == "refused" for f in self.faults)


class Assembly:
    """Takes the blocks of W waves of C collectors in any order, from any thread.

    Blocks of another policy version or length, and those that come twice, are dropped and counted.
    """

    def __init__(self, n_collectors: int, waves: int, version: int, segment_steps: int):
        order = [(wave, c) for wave in range(waves) for c in range(n_collectors)]
        self._places = {place: k for k, place in enumerate(order)}
        self._version, self._segment_steps = version, segment_steps
        self._kept: dict[tuple[int, int], SegmentBlock] = {}
        self._frames = np.empty(0)
        self._late = 0
        self._lock = threading.Lock()

    def put(self, block: SegmentBlock) -> None:
        """Copy one block, of which nothing is held afterwards."""
        place = block.wave, block.collector_id
        with self._lock:
            fits = block.policy_version == self._version and len(block.action) == self._segment_steps
            if not fits or place not in self._places or place in self._kept:
                self._late += 1
                return
            arrays = {f.name: getattr(block, f.name) for f in dataclasses.fields(block)}
            copies = {name: x.copy() for name, x in arrays.items() if isinstance(x, np.ndarray) and name != "frames"}
            self._kept[place] = dataclasses.replace(block, frames=self._placed(block.frames, place), **copies)

    def _placed(self, frames: np.ndarray, place: tuple[int, int]) -> np.ndarray:
        """A copy of the block's `frames`, at its columns of the array that holds all frames."""
        length, n_columns, *shape = frames.shape
        if not self._kept:
            self._frames = np.empty((length, len(self._places) * n_columns, *shape), frames.dtype)
        first = self._places[place] * n_columns
        into = self._frames[:, first : first + n_columns]
        into[:] = frames
        return into

    def collected(self, faults: Sequence[Fault] = ()) -> Collected:
        """All of it; ShortBatch, naming the collectors, where a block is missing."""
        missing = sorted({c for wave, c in self._places if (wave, c) not in self._kept})
        if missing:
            raise ShortBatch(
                f"no block of policy version {self._version} from collectors {missing}: the batch would be short"
            )
        return Collected([self._kept[place] for place in self._places], self._late, tuple(faults))
