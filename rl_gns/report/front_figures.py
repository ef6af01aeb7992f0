"""A sweep's fronts: optimizer steps S against env steps E."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from rl_gns.digits import round3, with_interval
from rl_gns.report import drawing
from rl_gns.report.batch_sizes import CONFIDENCE, BatchSize, by_batch_size, fitted_steps
from rl_gns.report.drawing import COLOURS, DASHES, INK, MARKERS, SOFT, Drawn, Table
from rl_gns.report.found import FoundSweep

COLUMNS = (
    "variant",
    "goal_return",
    "run",
    "seed",
    "batch_env_steps",
    "learning_rate",
    "optimizer_steps",
    "env_steps",
    "reached",
    "collapsed",
)
FIELDS = ("goal_return", "name", *COLUMNS[3:])
"""Of a cell, after its variant."""
BARS = f"bars: {CONFIDENCE:.0%} t interval of the geometric mean over seeds, along which B does not change"


def front(found: FoundSweep, name: str) -> Drawn:
    """S against E: every run at the rate that stands for its batch size, the means, the fit and its knee."""
    variants = list(dict.fromkeys(each.get("variant", "") for each in found.fronts))
    figure, grid = _grid(variants, 3.5 + 0.17 * 3 * len(found.fronts))
    for axes, variant in zip(grid, variants, strict=True):
        of_variant = [each for each in found.fronts if each.get("variant", "") == variant]
        for style, each in enumerate(of_variant):
            _contour(axes, found, each, style, alone=len(variants) == 1)
        alone = len(variants) == 1
        axes.set(
            xlabel="optimizer steps S" if alone or axes in grid[-2:] else "",
            ylabel="env steps E" if alone or axes.get_subplotspec().is_first_col() else "",
        )
        if variant:
            axes.set_title("\n".join([variant, *map(_knee_words, of_variant)]), fontsize=8)
        drawing.log_axis(axes, "x")
        drawing.log_axis(axes, "y")
    drawing.legend_below(figure, grid[0])
    chosen = [cell for cell in found.cells() if cell["chosen"]]
    return Drawn(
        name=name,
        title=f"{found.env}: optimizer steps against env steps to a goal ({found.name})",
        figure=figure,
        columns=COLUMNS,
        rows=[(c.get("variant", ""), *(c[name] for name in FIELDS)) for c in chosen],
        table=Table(*_knees(found)),
        caption="A contour a goal. Faint points: runs at the learning rate that stands for their batch size (chosen on "
        f"the same runs, so S reads low); means are of the runs that reached the goal, hollow where fewer than half of "
        f"that rate's did; {BARS}; arrows: runs stopped short of the goal; crosses: runs that "
        "collapsed. Line: S = S_min (1 + B_crit / B); star and thick line: the swept knee and its 90% interval; open "
        "diamond: the knee predicted from the runs' noise scales.",
        origin=found.origin(chosen),
    )


def _grid(variants: list[str], height: float) -> tuple[Any, list[Axes]]:
    """One panel, or two in a row."""
    columns = 1 if len(variants) == 1 else 2
    rows = -(-len(variants) // columns)
    tall = height if columns == 1 else 2.5 * rows + 1.2
    figure, grid = drawing.panels(rows, columns, tall, squeeze=False, sharex=columns > 1, sharey=columns > 1)
    for spare in grid.flat[len(variants) :]:
        grid[-2, -1].tick_params(labelbottom=True)  # nothing is below that panel
        spare.remove()
    return figure, list(grid.flat[: len(variants)])


def _knee_words(each: dict[str, Any]) -> str:
    fit = each["front"]
    if not fit or each.get("limited_by"):
        return "no front" if not fit else f"{each['limited_by']} limited"
    doubt = "" if fit["resolved"] else ", not resolved"
    return f"B_crit {with_interval(fit['b_crit'], fit['low'], fit['high'])}{doubt}"


def _contour(axes: Axes, found: FoundSweep, each: dict[str, Any], style: int, alone: bool) -> None:
    """One front; in a panel among others its numbers are in the title, and the legend says what the marks are."""
    colour, marker = COLOURS[style % len(COLOURS)], MARKERS[style % len(MARKERS)]
    cells = [cell for cell in found.cells(each) if cell["chosen"]]
    there = [cell for cell in cells if cell["reached"]]
    axes.plot(*_both(there), marker, ms=3, color=colour, alpha=0.4, mew=0)
    for cell in (cell for cell in cells if not cell["reached"]):
        _missed(axes, cell, colour)
    means = [size for size in by_batch_size(cells, found.epochs(each)) if size.optimizer_steps]
    label = f"return {each['goal_return']:g}"
    label += f": {len(there)} of {len(cells)} runs got there" if alone else ""
    axes.plot([], [], marker, ms=5, color=colour, label=label)
    for mean in means:
        _bar(axes, mean, colour)
        face = colour if mean.half_there else drawing.PAPER
        axes.plot([mean.optimizer_steps], [mean.env_steps], marker, ms=5, mfc=face, color=colour)
        if style == 0:
            _size(axes, mean, "B = " * (mean is means[0]))
    _fit(axes, each, colour, DASHES[style % len(DASHES)], alone)


def _size(axes: Axes, mean: BatchSize, before: str) -> None:
    """Above and left of the point, where its bar does not run."""
    place = {"textcoords": "offset points", "ha": "right", "va": "bottom", "fontsize": 7, "color": SOFT}
    box = {"fc": drawing.PAPER, "ec": "none", "pad": 0.4, "alpha": 0.65}
    axes.annotate(f"{before}{mean.batch_size:,}", (mean.optimizer_steps, mean.env_steps), (-4, 3), bbox=box, **place)


def _both(cells: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    return [cell["optimizer_steps"] for cell in cells], [cell["env_steps"] for cell in cells]


def _missed(axes: Axes, cell: dict[str, Any], colour: str) -> None:
    at = (cell["optimizer_steps"], cell["env_steps"])
    if cell["collapsed"]:
        axes.plot(*at, "x", ms=5, color=colour)
        return
    axes.plot(*at, ".", ms=2, color=colour)
    further = (1.4 * at[0], 1.4 * at[1])
    axes.annotate(
        "", further, at, arrowprops={"arrowstyle": "->", "color": colour, "lw": 0.8, "shrinkA": 0, "shrinkB": 0}
    )


def _bar(axes: Axes, mean: BatchSize, colour: str) -> None:
    if mean.factor is not None:
        ends = np.array([1 / mean.factor, mean.factor])
        axes.plot(mean.optimizer_steps * ends, mean.env_steps * ends, "-", color=colour, lw=1, alpha=0.55)


def _fit(axes: Axes, each: dict[str, Any], colour: str, dashes: Any, alone: bool) -> None:
    """The fitted front; a star at its swept knee (none where the floor is the clip's), a diamond where the noise scale
    predicts it."""
    fit, predicted = each["front"], each["predicted"]
    if not fit or not fit["b_crit"]:
        return

    def at(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        steps = fitted_steps(fit, batch)
        return steps, steps * batch / fit["epochs"]

    least, most = fit["batch_min"], fit["batch_max"]
    axes.plot(*at(np.geomspace(least, most, 100)), color=colour, lw=1, ls=dashes)
    if each.get("limited_by"):
        return
    low, high = max(fit["low"], least / 3), min(fit["high"] or 3 * most, 3 * most)
    if low < high:
        axes.plot(*at(np.geomspace(low, high, 50)), color=colour, lw=5, alpha=0.18, solid_capstyle="butt")
    knee = at(np.array([fit["b_crit"]]))
    words = f"swept knee{': ' + _knee_words(each) if alone else ''}"
    axes.plot(*knee, "*", ms=12, color=colour, mec=INK, mew=0.5, label=words)
    if predicted and predicted["b_crit"]:
        words = f": {with_interval(predicted['b_crit'], predicted['low'], predicted['high'])}" if alone else ""
        axes.plot(*at(np.array([predicted["b_crit"]])), "D", ms=7, mfc="none", color=colour, label=f"predicted{words}")


def _knees(found: FoundSweep) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    named = any(each.get("variant") for each in found.fronts)
    head = (
        "goal (return)",
        "variant",
        "reached, all learning rates",
        "S_min (steps)",
        "E_min (env steps)",
        "B_crit (env steps)",
        "resolved",
    )
    lines = []
    for each in found.fronts:
        fit, reached = each["front"], f"{each['reached']} of {each['cells']}"
        start = (f"{each['goal_return']:g}", each.get("variant", ""), reached)
        if not fit:
            lines.append((*start, "", "", "no front", each.get("no_front") or ""))
            continue
        s_min = with_interval(fit["s_min"], fit.get("s_min_low"), fit.get("s_min_high"))
        knee = with_interval(fit["b_crit"], fit["low"], fit["high"])
        if each.get("limited_by"):
            knee = f"none: the floor is the {each['limited_by']}'s"
        lines.append((*start, s_min, round3(fit["e_min"]), knee, "yes" if fit["resolved"] else f"no: {fit['reason']}"))
    return (head, lines) if named else (head[:1] + head[2:], [line[:1] + line[2:] for line in lines])
