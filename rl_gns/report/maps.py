"""Learning rate against batch size: the steps of every cell, the best rate of each batch size, flags at the edge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from rl_gns.report import drawing
from rl_gns.report.batch_sizes import geometric
from rl_gns.report.drawing import INK, ORANGE, SOFT, Drawn, Table
from rl_gns.report.found import FoundSweep

COLUMNS = ("variant", "goal_return", "batch_size_env_steps", "learning_rate", "runs", "reached")
COLUMNS += ("optimizer_steps", "chosen", "edge")
WORST = 4.0
"""Times the best rate's steps at which the colours end (a choice)."""
DARK, LIGHT = "#101012", "#fcfcfc"
"""Words on a coloured square, the same in both modes of the page."""


@dataclass(frozen=True)
class Square:
    """One batch size at one learning rate, to one goal."""

    batch_size: int
    learning_rate: float
    runs: int
    reached: int
    optimizer_steps: float | None
    """Geometric mean of those that reached the goal."""
    chosen: bool
    edge: bool
    """The chosen rate is the smallest or largest that was tried at this batch size: the best may lie outside."""


def squares(cells: list[dict[str, Any]]) -> list[Square]:
    """Of one front, batch sizes and rates ascending."""
    rates: dict[int, list[float]] = {}
    for cell in cells:
        rates.setdefault(cell["batch_size"], []).append(cell["learning_rate"])
    found = []
    for size in sorted(rates):
        tried = sorted(set(rates[size]))
        for rate in tried:
            here = [c for c in cells if (c["batch_size"], c["learning_rate"]) == (size, rate)]
            steps = [c["optimizer_steps"] for c in here if c["reached"]]
            chosen = bool(here[0]["chosen"])
            edge = chosen and rate in (tried[0], tried[-1])
            found.append(Square(size, rate, len(here), len(steps), geometric(steps)[0], chosen, edge))
    return found


def rate_map(found: FoundSweep, name: str) -> Drawn | None:
    """A panel a goal (and variant); None where no batch size was tried at more than one rate."""
    maps = [(each, squares(found.cells(each))) for each in found.fronts]
    maps = [(each, its) for each, its in maps if len(its) > len({square.batch_size for square in its})]
    if not maps:
        return None
    figure, grid = drawing.panels(len(maps), 1, 2.5 * len(maps) + 1.0, squeeze=False)
    colours, scale = matplotlib.colormaps["cividis_r"], Normalize(0.0, np.log(WORST))
    for axes, (each, its) in zip(grid.flat, maps, strict=True):
        _panel(axes, its, colours, scale)
        variant = each.get("variant", "")
        axes.set_title(f"{variant}{', ' * bool(variant)}return {each['goal_return']:g}")
    bar = figure.colorbar(matplotlib.cm.ScalarMappable(scale, colours), ax=grid, location="bottom", aspect=40, pad=0.02)
    ticks = [1.0, 1.5, 2.0, 3.0, WORST]
    bar.set_ticks(np.log(ticks), labels=[f"{tick:g}" if tick < WORST else f"{tick:g} or more" for tick in ticks])
    bar.set_label("optimizer steps, times those of the framed rate at that batch size", fontsize=8)
    bar.outline.set_visible(False)
    return Drawn(
        name=name,
        title=f"{found.env}: learning rate and batch size ({found.name})",
        figure=figure,
        columns=COLUMNS,
        rows=[(each.get("variant", ""), each["goal_return"], *vars(s).values()) for each, its in maps for s in its],
        table=_table(maps),
        caption="Each square: geometric mean of S over the runs that reached the goal, as a multiple of the framed "
        "rate's at that batch size (and how many got there, where not all did). Framed: the rate that stands for the "
        "batch size: most runs there, then fewest steps. Framed and dashed: that rate is the smallest or largest "
        "tried, so the best may lie outside.",
        origin=found.origin(),
    )


def _panel(axes: Axes, its: list[Square], colours: Any, scale: Any) -> None:
    sizes, rates = ([getattr(s, n) for s in its] for n in ("batch_size", "learning_rate"))
    best = {s.batch_size: s.optimizer_steps for s in its if s.chosen}
    columns = [[s.learning_rate for s in its if s.batch_size == size] for size in set(sizes)]
    wide, tall = _gap([sizes]), _gap(columns)
    for square in its:
        x, y = (np.array([v / g, v * g]) for v, g in ((square.batch_size, wide), (square.learning_rate, tall)))
        known = square.optimizer_steps and best.get(square.batch_size)
        times = square.optimizer_steps / best[square.batch_size] if known else None
        shade = float(scale(np.log(min(max(times, 1.0), WORST)))) if times else 0.0
        face = colours(shade) if times else "none"
        axes.fill_between(x, y[0], y[1], facecolor=face, edgecolor=SOFT, lw=0.0 if times else 0.6)
        if square.chosen:
            style = (0, (3, 2)) if square.edge else "-"
            axes.plot(x[[0, 1, 1, 0, 0]], y[[0, 0, 1, 1, 0]], color=ORANGE, lw=2, ls=style, solid_joinstyle="miter")
        _words(axes, square, times, DARK if times and shade < 0.5 else LIGHT if times else INK)
    axes.set(xlabel="batch size B (env steps)", ylabel="learning rate")
    axes.grid(False)
    axes.margins(0.04)
    for which, values in (("x", sizes), ("y", rates)):
        drawing.log_axis(axes, which)
        if which == "x" or len(set(values)) <= 6:
            axis, kept = (axes.xaxis if which == "x" else axes.yaxis), sorted(set(values))
            axis.set_ticks(kept, labels=[f"{v:,}" if which == "x" else f"{v:.2g}" for v in kept])


def _words(axes: Axes, square: Square, times: float | None, colour: str) -> None:
    share = "" if square.reached == square.runs else f"\n{square.reached}/{square.runs}"
    words = f"{times:.2f}{share}" if times else f"{square.reached}/{square.runs}"
    style = {"ha": "center", "va": "center", "fontsize": 7, "color": colour, "linespacing": 1.1}
    axes.text(square.batch_size, square.learning_rate, words, **style)


def _gap(lines: list[list[float]]) -> float:
    """Factor from a square's middle to its edge: half the least step between neighbours in a line, with a margin."""
    steps = np.concatenate([np.diff(np.log(sorted(set(line)))) for line in lines])
    return float(np.exp(0.46 * steps.min())) if len(steps) else 1.3


def _table(maps: list[tuple[dict[str, Any], list[Square]]]) -> Table:
    head = (
        "goal",
        "B (env steps)",
        "chosen learning rate",
        "reached",
        "optimizer steps S",
        "at the edge of the rates tried",
    )
    lines = []
    for each, its in maps:
        variant = each.get("variant", "")
        goal = f"{variant}{', ' * bool(variant)}{each['goal_return']:g}"
        for s in (square for square in its if square.chosen):
            steps = "" if s.optimizer_steps is None else f"{s.optimizer_steps:,.0f}"
            edge = "yes: widen" if s.edge else "no"
            lines.append((goal, f"{s.batch_size:,}", f"{s.learning_rate:.3g}", f"{s.reached} of {s.runs}", steps, edge))
    return Table(head, lines)
