"""Which generation every collector is in: how often it was seeded anew, so that no stream is ever played twice.

31 bits of seeds hold 512 generations (`collector.COLUMNS_PER_GENERATION`): the first 256 are for training, the others
for measurements of frozen policies, which so never see a column of training.
"""

from __future__ import annotations

from typing import Any

MEASURED_ON = 256
"""Generation in which measurements start; training stays below it."""
HELD_OUT_ON, REPLAYED_ON, REPLAYED_ELSE_ON = MEASURED_ON + 1, MEASURED_ON + 2, MEASURED_ON + 3
"""Of the other columns of `measure --all`: those that judge what was measured, those that are replayed, and those whose
streams a replay draws from."""
MOVED_ON = MEASURED_ON + 4
"""Where a collector goes first that is seeded anew during a measurement: in none of those columns' generations."""


class NoGenerationLeft(RuntimeError):
    """Another generation would repeat the streams of an earlier one, or those of a measurement."""


class Generations:
    """Collector id -> generation. Collectors that were never told apart are all in the one they started in."""

    def __init__(self) -> None:
        self._start = 0
        self._moved: dict[int, int] = {}

    def restart(self, states: list[dict[str, Any]] | None, generation: int) -> None:
        """Every saved collector in its own generation, the others in the first; without states, all in `generation`."""
        self._start = 0 if states else self._checked(generation, "the run")
        self._moved = {c: state["generation"] for c, state in enumerate(states or [])}

    def of(self, collector_id: int) -> int:
        """The generation that this collector is in."""
        return self._moved.get(collector_id, self._start)

    def advance(self, collector_id: int) -> int:
        """Move one collector into its next generation, and return it; NoGenerationLeft after 255 moves (of a measured
        one: 252)."""
        generation = self._checked(self.of(collector_id) + 1, f"collector {collector_id}")
        if generation > MEASURED_ON:
            generation = max(generation, MOVED_ON)
        self._moved[collector_id] = generation
        return generation

    def _checked(self, generation: int, who: str) -> int:
        """What trained in an earlier generation never comes to one of measurements."""
        newest = max([self._start, *self._moved.values()])
        if generation >= 2 * MEASURED_ON or 0 < newest < MEASURED_ON <= generation:
            raise NoGenerationLeft(_EXHAUSTED.format(who=who))
        return generation


_EXHAUSTED = "{who} was seeded anew 255 times, and no unused random streams are left for it; start a new run"
