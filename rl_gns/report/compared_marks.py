"""The marks of the figure of games: an interval a game and stage, a mark a policy, and what the legend says of them."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes

from rl_gns.report import drawing
from rl_gns.report.drawing import COLOURS, INK, MARKERS, SOFT

PART = "policy"
Limits = tuple[float, float]


def stage_words(stage: int) -> str:
    """`fresh`, `after 200,000 env steps`."""
    return "fresh" if not stage else f"after {stage:,} env steps"


def limits(saved: dict[str, Any]) -> Limits:
    """Of the axis: all that is known, with a margin."""
    results = [each["noise"][PART] for each in saved["results"]]
    known = [v for each in results for v in (each[n] for n in ("b_simple", "low", "high")) if v]
    known += [v for cell in saved["cells"] if (v := _place(cell["noise"][PART]))]
    known += [paper[name] for paper in saved["paper"] for name in ("b_simple_early", "b_simple_end")]
    return (min(known) / 1.6, 1.6 * max(known)) if known else (1.0, 1e6)


def _place(scale: dict[str, Any]) -> float | None:
    """Where a policy's mark stands: its estimate, else its lower limit; None where nothing is known."""
    return scale["b_simple"] or scale["low"] or None


def interval(axes: Axes, pooled: dict[str, Any], y: float, i: int, ends: Limits) -> None:
    """The headline interval as a line with the estimate on it, that of these very seeds as a pale bar behind it."""
    colour = COLOURS[i % len(COLOURS)]
    within = max(pooled["within_low"], ends[0]), pooled["within_high"] or ends[1]
    axes.plot(within, (y, y), "-", color=colour, lw=7, alpha=0.22, solid_capstyle="butt")
    axes.plot((max(pooled["low"], ends[0]), pooled["high"] or ends[1]), (y, y), "-", color=colour, lw=1.4)
    if pooled["high"] is None:
        axes.plot([ends[1] / 1.06], [y], ">", ms=5, color=colour, clip_on=False)
    if pooled["low"] < ends[0]:
        axes.plot([ends[0] * 1.06], [y], "<", ms=5, color=colour, clip_on=False)
    if pooled["b_simple"]:
        face = colour if pooled["resolved"] else drawing.PAPER
        axes.plot([pooled["b_simple"]], [y], MARKERS[i % len(MARKERS)], ms=6, mfc=face, color=colour)


def policies(axes: Axes, scales: list[dict[str, Any]], y: float, i: int, ends: Limits) -> None:
    """A mark a policy: a dot at its estimate; where that is not above zero, a small arrow at its lower limit."""
    look = {"color": COLOURS[i % len(COLOURS)], "alpha": 0.6, "mew": 0}
    dots = [scale["b_simple"] for scale in scales if scale["b_simple"]]
    arrows = [_place(scale) or ends[1] for scale in scales if not scale["b_simple"]]
    axes.plot(dots, [y + 0.1] * len(dots), "o", ms=2.6, **look)
    axes.plot(arrows, [y + 0.1] * len(arrows), ">", ms=4, **look)


def paper(axes: Axes, value: dict[str, Any], y: float) -> None:
    """What McCandlish et al. show for the game."""
    ends = (value["b_simple_early"], value["b_simple_end"])
    axes.plot(ends, (y, y), "-", color=SOFT, lw=0.8)
    axes.plot(ends, (y, y), "^", ms=4.5, mfc="none", color=SOFT)


def name_marks(axes: Axes, saved: dict[str, Any], stages: list[int]) -> None:
    """For the legend: the stages by colour and shape, then what each kind of mark means."""
    for i, stage in enumerate(stages):
        axes.plot(
            [],
            [],
            f"{MARKERS[i % len(MARKERS)]}-",
            ms=6,
            lw=1.4,
            color=COLOURS[i % len(COLOURS)],
            label=stage_words(stage),
        )
    scales = [cell["noise"][PART] for cell in saved["cells"]]
    pooled = [each["noise"][PART] for each in saved["results"]]
    axes.plot([], [], "-", lw=7, alpha=0.22, color=INK, solid_capstyle="butt", label="pale: spread within these seeds")
    if not all(each["resolved"] for each in pooled):
        axes.plot([], [], "o", ms=6, mfc="none", color=INK, label="hollow: unresolved")
    axes.plot([], [], "o", ms=2.6, alpha=0.6, mew=0, color=INK, label="dot: one policy")
    if not all(scale["b_simple"] for scale in scales):
        axes.plot([], [], ">", ms=4, alpha=0.6, mew=0, color=INK, label="arrow: one policy, at its lower limit")
    if saved["paper"]:
        axes.plot([], [], "^-", ms=4.5, lw=0.8, mfc="none", color=SOFT, label="McCandlish et al. 2018: early, end")
