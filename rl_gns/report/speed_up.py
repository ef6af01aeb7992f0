"""What a larger batch buys: how many times fewer optimizer steps it needs to a sweep's goals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from rl_gns.report import drawing
from rl_gns.report.batch_sizes import CONFIDENCE, BatchSize, by_batch_size, fitted_steps
from rl_gns.report.drawing import COLOURS, DASHES, MARKERS, SOFT, Drawn, Table
from rl_gns.report.found import FoundSweep

COLUMNS = ("variant", "goal_return", "batch_env_steps", "speed_up", "interval_factor", "reached", "runs")
HEAD = ("goal", "B (env steps)", "speed-up", f"{CONFIDENCE:.0%} interval", "reached")
IDEAL = "ideal: a batch k times larger, k times fewer steps"


@dataclass(frozen=True)
class SpeedUp:
    """Of one batch size, against the one that its front starts from."""

    size: BatchSize
    times: float
    """S of the start over S here, of the runs that reached the goal."""
    factor: float | None
    """The interval is times / factor to times factor; None at the start, and where either has one run."""


@dataclass(frozen=True)
class Line:
    """Those of one front."""

    front: dict[str, Any]
    start: BatchSize
    """The smallest that half of its runs took to the goal."""
    speed_ups: list[SpeedUp]

    @property
    def label(self) -> str:
        variant = self.front.get("variant", "")
        return f"{variant}{', ' * bool(variant)}return {self.front['goal_return']:g}"


def speed_up(found: FoundSweep, name: str) -> Drawn | None:
    """Optimizer steps at the smallest batch over those at B; None where no front has two batch sizes that got there."""
    lines = [line for each in found.fronts if (line := _line(found, each))]
    if not lines:
        return None
    figure, axes = drawing.panels(height=3.5 + 0.18 * len(lines))
    for style, line in enumerate(lines):
        _draw(axes, line, style, 1.03 ** (style - (len(lines) - 1) / 2))
    _ideal(axes, lines)
    axes.set(xlabel="batch size B (env steps)", ylabel="speed-up (times fewer optimizer steps)")
    drawing.log_axis(axes, "x")
    drawing.log_axis(axes, "y")
    drawing.legend_below(figure, axes)
    return Drawn(
        name=name,
        title=f"{found.env}: how many times fewer optimizer steps a larger batch needs ({found.name})",
        figure=figure,
        columns=COLUMNS,
        rows=[_row(line, each) for line in lines for each in line.speed_ups],
        table=Table(HEAD, [_words(line, each) for line in lines for each in line.speed_ups]),
        caption="S at the smallest batch size that at least half of its runs took to the goal, over S at B: geometric "
        f"means over the seeds that reached it (hollow: fewer than half did); bars: {CONFIDENCE:.0%} t intervals of "
        "both means, joined in logarithms (goals stand side by side). Dashed grey: the ideal line from each start. "
        "Thin: S at the start over S of the fitted front.",
        origin=found.origin([cell for cell in found.cells() if cell["chosen"]]),
    )


def _line(found: FoundSweep, each: dict[str, Any]) -> Line | None:
    sizes = [size for size in by_batch_size(found.cells(each), found.epochs(each)) if size.optimizer_steps]
    start = next((size for size in sizes if size.half_there), None)
    if start is None or len(sizes) < 2:
        return None
    return Line(each, start, [SpeedUp(s, start.optimizer_steps / s.optimizer_steps, _joined(start, s)) for s in sizes])


def _joined(start: BatchSize, size: BatchSize) -> float | None:
    """Of a ratio of two means, each with its factor: distances in logarithms joined as independent ones."""
    if size is start or start.factor is None or size.factor is None:
        return None
    return math.exp(math.hypot(math.log(start.factor), math.log(size.factor)))


def _row(line: Line, each: SpeedUp) -> tuple[Any, ...]:
    size = each.size
    of = (line.front.get("variant", ""), line.front["goal_return"], size.batch_env_steps)
    return (*of, each.times, each.factor, size.reached, size.runs)


def _words(line: Line, each: SpeedUp) -> tuple[str, ...]:
    size, words = each.size, "the start" if each.size is line.start else "one run"
    if each.factor is not None:
        words = f"{each.times / each.factor:.3g} to {each.times * each.factor:.3g}"
    return line.label, f"{size.batch_size:,}", f"{each.times:.3g}", words, f"{size.reached} of {size.runs}"


def _draw(axes: Axes, line: Line, style: int, aside: float) -> None:
    colour, marker = COLOURS[style % len(COLOURS)], MARKERS[style % len(MARKERS)]
    axes.plot([], [], marker, ms=5, color=colour, label=line.label)
    for each in line.speed_ups:
        factor, face = each.factor or 1.0, colour if each.size.half_there else drawing.PAPER
        bars = [[each.times - each.times / factor], [each.times * factor - each.times]]
        look = {"color": colour, "mfc": face, "ms": 5, "elinewidth": 1, "capsize": 2 if each.factor else 0}
        axes.errorbar([aside * each.size.batch_env_steps], [each.times], bars, fmt=marker, **look)
    fit = line.front["front"]
    if fit and fit["b_crit"] is not None:
        along = np.geomspace(line.start.batch_env_steps, line.speed_ups[-1].size.batch_env_steps, 80)
        model = line.start.optimizer_steps / fitted_steps(fit, along)
        axes.plot(along, model, color=colour, lw=1, ls=DASHES[style % len(DASHES)])


def _ideal(axes: Axes, lines: list[Line]) -> None:
    """One line a start: fronts that start at the same batch size share it."""
    for size in sorted({line.start.batch_size for line in lines}):
        from_here = [line for line in lines if line.start.batch_size == size]
        least = from_here[0].start.batch_env_steps
        ends = np.array([least, max(line.speed_ups[-1].size.batch_env_steps for line in from_here)])
        axes.plot(ends, ends / least, color=SOFT, lw=1, ls=(0, (2, 2)), label=IDEAL)
