"""What is said of one front, one run or one game: in words for people, in numbers for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rl_gns.report.drawing import Table

HEAD = ("what", "predicted (env steps)", "swept (env steps)", "used (env steps)", "largest useful batch (env steps)")

NOT_SWEPT = "not swept"


@dataclass(frozen=True)
class Answer:
    """What one front, one run, or one game at one stage says of a world's batch size."""

    env: str
    what: str
    """`to a return of 200`, the run's name, or the stage."""
    predicted: str
    swept: str
    used: str
    useful: str
    """Largest batch size whose env steps are within 1.2 of the fewest."""
    says: str
    """In a sentence or two."""
    numbers: dict[str, Any] = field(default_factory=dict)
    """For --json: of each column what is a number, in env steps; null for what is not known."""
    brief: bool = False
    """The page has its row in the table alone: one of many games."""

    def cells(self) -> tuple[str, ...]:
        return self.what, self.predicted, self.swept, self.used, self.useful


def limits(found: Any, value: str = "b_crit") -> dict[str, Any]:
    """`value`, `low`, `high` of a record as on disk, null where there is none; `resolved` where it says so."""
    found = found or {}
    kept = {"value": found.get(value), "low": found.get("low"), "high": found.get("high")}
    return kept | ({"resolved": found["resolved"]} if "resolved" in found else {})


def verdict_table(found: Sequence[Answer]) -> Table:
    """Side by side."""
    return Table(HEAD, [(f"{answer.env}: {answer.what}", *answer.cells()[1:]) for answer in found])


def verdict_words(found: Sequence[Answer]) -> list[str]:
    """For a terminal."""
    lines = []
    for each in found:
        lines.append(f"{each.env}, {each.what}: {each.says}")
        if each.brief and each.swept == NOT_SWEPT:
            continue
        lines.append(
            f"  B_crit or noise scale in env steps: predicted {each.predicted}; swept {each.swept}; used {each.used}; "
            f"largest useful batch {each.useful}."
        )
    return lines
