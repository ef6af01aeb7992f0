"""Predicted against swept critical batch size over games: every goal of every sweep, and of every sweep that a
comparison has beside its games."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from rl_gns.digits import with_interval
from rl_gns.noise.pooled_prediction import hold_against
from rl_gns.report import compared, drawing, names
from rl_gns.report.drawing import COLOURS, MARKERS, SOFT, Drawn, Table
from rl_gns.report.found import FoundComparison, FoundSweep, joined
from rl_gns.report.protocols import mixed
from rl_gns.report.summary import agree_words

COLUMNS = ("game", "sweep", "variant", "goal_return", "swept_b_crit_env_steps", "swept_low", "swept_high")
COLUMNS += ("swept_resolved", "predicted_b_crit_env_steps", "predicted_low", "predicted_high")
COLUMNS += ("ratio", "ratio_low", "ratio_high", "agree")
HEAD = ("game", "goal", "swept B_crit (env steps)", "predicted B_crit (env steps)", "predicted / swept")
NUMBERS = ("b_crit", "low", "high")
Beside = FoundSweep | FoundComparison


@dataclass(frozen=True)
class Pair:
    """One goal of one sweep: the knee that was swept and the one that was predicted."""

    game: str
    directory: Path
    """Of the sweep."""
    variant: str
    goal_return: float
    swept: dict[str, Any]
    """`b_crit`, `low`, `high`, `resolved`."""
    predicted: dict[str, Any]
    """`b_crit`, `low`, `high`."""
    sweep: str = ""
    """The end of its directory's path that is no other's."""

    @property
    def label(self) -> str:
        return f"{self.game}{self.variant and f' ({self.variant})'} ({self.sweep})"

    @property
    def goal(self) -> tuple[Any, ...]:
        return self.game, self.variant, self.goal_return

    @property
    def numbers(self) -> tuple[Any, ...]:
        return self.directory.name, *(which[n] for which in (self.swept, self.predicted) for n in NUMBERS)


def pairs(found: Sequence[Beside]) -> list[Pair]:
    """Those with both numbers, each once: of a sweep whose directory is given and that a comparison names, the sweep's
    own, also where the directories were moved since and only name and numbers say that it is the same."""
    sweeps = [pair for each in found if isinstance(each, FoundSweep) for pair in _of_sweep(each)]
    beside = [pair for each in found if isinstance(each, FoundComparison) for pair in _of_comparison(each)]
    known = {(*pair.goal, *pair.numbers) for pair in sweeps}
    unique: dict[tuple[Any, ...], Pair] = {}
    for pair in [*sweeps, *(each for each in beside if (*each.goal, *each.numbers) not in known)]:
        unique.setdefault((pair.directory.resolve(), *pair.goal), pair)
    labels = names.distinct([pair.directory for pair in unique.values()])
    return [replace(pair, sweep=label) for pair, label in zip(unique.values(), labels, strict=True)]


def _of_sweep(found: FoundSweep) -> list[Pair]:
    kept = [each for each in found.fronts if not each.get("limited_by") and _known(each["front"], each["predicted"])]
    return [
        Pair(found.env, found.path, each.get("variant", ""), each["goal_return"], each["front"], each["predicted"])
        for each in kept
    ]


def _of_comparison(found: FoundComparison) -> list[Pair]:
    made = []
    for each in found.saved["fronts"]:
        predicted = {"b_crit": each["predicted"], "low": each["predicted_low"], "high": each["predicted_high"]}
        if _known(each, predicted):
            of = (each["game"], Path(each["directory"]), each["variant"], each["goal_return"])
            made.append(Pair(*of, each, predicted))
    return made


def _known(*both: dict[str, Any] | None) -> bool:
    return all(each and each["b_crit"] for each in both)


def games(found: Sequence[Beside], name: str) -> Drawn | None:
    """None where no front has both a swept and a predicted knee to draw."""
    points = pairs(found)
    if not points:
        return None
    figure, axes = drawing.panels(height=5.2)
    low, high = _limits(points)
    axes.plot([low, high], [low, high], color=SOFT, lw=1, ls=(0, (2, 2)), label="predicted = swept")
    labels = list(dict.fromkeys(point.label for point in points))
    for point in points:
        _point(axes, point, labels.index(point.label), (low, high))
    axes.set(xlabel=HEAD[2], ylabel=HEAD[3], xlim=(low, high), ylim=(low, high))
    drawing.log_axis(axes, "x")
    drawing.log_axis(axes, "y")
    axes.set_aspect("equal")
    drawing.legend_below(figure, axes)
    drawing.mark_forced(figure, [*mixed(found), *_forced(found)])
    n, n_sweeps = len(points), len({point.sweep for point in points})
    return Drawn(
        name=name,
        title="Predicted against swept critical batch size",
        figure=figure,
        columns=COLUMNS,
        rows=[_row(point) for point in points],
        table=_table(points),
        caption="A point a goal: B_crit from the noise scales of the sweep's own runs against the knee of its front, "
        "90% intervals; a line up to the frame has no limit on that side. Hollow: the swept knee is not resolved. "
        "Fronts whose floor is the clip's, or without either number, are left out.",
        origin=joined(
            [each.origin() if isinstance(each, FoundSweep) else compared.origin(each.saved) for each in found],
            f"{n} front{'s' * (n > 1)} of {n_sweeps} sweep{'s' * (n_sweeps > 1)}",
        ),
    )


def _forced(found: Sequence[Beside]) -> list[str]:
    """What a comparison let in of other protocols."""
    fronts = [front for each in found if isinstance(each, FoundComparison) for front in each.saved["fronts"]]
    differences = [f"{f['game']} ({Path(f['directory']).name}): {f['forced']}" for f in fronts if f["forced"]]
    return list(dict.fromkeys(differences))


def _limits(points: Sequence[Pair]) -> tuple[float, float]:
    known = [which[n] for point in points for which in (point.swept, point.predicted) for n in NUMBERS]
    middles = [which["b_crit"] for point in points for which in (point.swept, point.predicted)]
    bounded = [v for v in known if v and min(middles) / 30 < v < 30 * max(middles)]
    return min(bounded) / 2, 2 * max(bounded)


def _point(axes: Axes, point: Pair, i: int, limits: tuple[float, float]) -> None:
    colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
    (x, x_low, x_high), (y, y_low, y_high) = ([w[n] for n in NUMBERS] for w in (point.swept, point.predicted))
    (x_ends, y_ends) = (
        (max(lo, limits[0]), min(hi or limits[1], limits[1])) for lo, hi in ((x_low, x_high), (y_low, y_high))
    )
    axes.plot(x_ends, (y, y), color=colour, lw=1, alpha=0.8)
    axes.plot((x, x), y_ends, color=colour, lw=1, alpha=0.8)
    face = colour if point.swept["resolved"] else drawing.PAPER
    axes.plot([x], [y], marker, ms=7, mfc=face, mec=colour, color=colour, label=point.label)
    axes.annotate(f"{point.goal_return:g}", (x, y), (6, 5), textcoords="offset points", fontsize=7, color=SOFT)


def _row(point: Pair) -> tuple[Any, ...]:
    held = hold_against(point.predicted, point.swept)
    start = (point.game, point.sweep, point.variant, point.goal_return)
    knees = (*(point.swept[n] for n in (*NUMBERS, "resolved")), *(point.predicted[n] for n in NUMBERS))
    return (*start, *knees, held.ratio, held.low, held.high, held.agree)


def _table(points: Sequence[Pair]) -> Table:
    lines = []
    for point in points:
        held = hold_against(point.predicted, point.swept)
        swept, predicted = (with_interval(*(w[n] for n in NUMBERS)) for w in (point.swept, point.predicted))
        doubt = "" if point.swept["resolved"] else ", not resolved"
        ratio = with_interval(held.ratio, held.low, held.high)
        said = f"{ratio}: {agree_words(held.agree, point.swept['resolved'])}"
        lines.append((point.label, f"{point.goal_return:g}", f"{swept}{doubt}", predicted, said))
    return Table(HEAD, lines)
