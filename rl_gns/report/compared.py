"""Games beside each other: B_simple of every game and stage, from the directory of a comparison."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes

from rl_gns.comparison import stage_name
from rl_gns.digits import round3, with_interval
from rl_gns.report import drawing
from rl_gns.report.drawing import COLOURS, MARKERS, SOFT, Drawn, Table
from rl_gns.report.found import FoundComparison, Origin, commands, commits

COLUMNS = ("game", "stage_env_steps", "part", "seed", "b_simple_env_steps", "low", "high", "resolved", "env_steps")
PART = "policy"


def figure(found: FoundComparison, name: str) -> Drawn | None:
    """A row a game, an interval a stage, small dots the seeds, open triangles the paper's values; None where nothing
    is measured yet."""
    saved = found.saved
    if not saved["results"]:
        return None
    games = [game for game in saved["games"] if any(each["game"] == game for each in saved["results"])]
    picture, axes = drawing.panels(height=1.5 + 0.75 * len(games))
    limits = _limits(saved)
    stages = sorted({each["stage"] for each in saved["results"]})
    for each in saved["results"]:
        y = games.index(each["game"]) + 0.22 * (stages.index(each["stage"]) - (len(stages) - 1) / 2)
        _interval(axes, saved, each, y, stages.index(each["stage"]), limits)
    for paper in saved["paper"]:
        if paper["game"] in games:
            ends = (paper["b_simple_early"], paper["b_simple_end"])
            at = games.index(paper["game"]) + 0.36
            axes.plot(ends, (at, at), "-", color=SOFT, lw=0.8)
            axes.plot(ends, (at, at), "^", ms=4.5, mfc="none", color=SOFT, label="McCandlish et al. 2018: early, end")
    axes.set(xlabel="B_simple of the policy gradient (env steps)", xlim=limits)
    axes.set_yticks(range(len(games)), games)
    axes.set_ylim(len(games) - 0.45, -0.55)
    drawing.log_axis(axes, "x")
    drawing.legend_below(picture, axes)
    drawing.mark_forced(picture, saved["forced"])
    return Drawn(
        name=name,
        title=f"Gradient noise scale of {len(games)} game{'s' * (len(games) > 1)} ({found.name})",
        figure=picture,
        columns=COLUMNS,
        rows=_rows(saved),
        table=_table(saved),
        caption=_caption(saved),
        origin=origin(saved),
    )


def _interval(axes: Axes, saved: dict[str, Any], each: dict[str, Any], y: float, i: int, limits: tuple) -> None:
    pooled, colour = each["noise"][PART], COLOURS[i % len(COLOURS)]
    low, high = max(pooled["low"], limits[0]), pooled["high"] or limits[1]
    axes.plot((low, high), (y, y), "-", color=colour, lw=1.6, solid_capstyle="butt")
    if pooled["high"] is None:
        axes.plot([limits[1] / 1.06], [y], ">", ms=5, color=colour, clip_on=False)
    if pooled["low"] < limits[0]:
        axes.plot([limits[0] * 1.06], [y], "<", ms=5, color=colour, clip_on=False)
    if pooled["b_simple"]:
        face = colour if pooled["resolved"] else drawing.PAPER
        axes.plot(
            [pooled["b_simple"]], [y], MARKERS[i % len(MARKERS)], ms=6, mfc=face, color=colour, label=stage_words(each)
        )
    seeds = [c for c in saved["cells"] if (c["game"], c["stage"]) == (each["game"], each["stage"])]
    dots = [cell["noise"][PART]["b_simple"] for cell in seeds if cell["noise"][PART]["b_simple"]]
    axes.plot(dots, [y + 0.09] * len(dots), ".", ms=5, color=colour, alpha=0.6, mew=0)


def stage_words(each: dict[str, Any]) -> str:
    """`fresh`, `after 200,000 env steps`."""
    return "fresh" if not each["stage"] else f"after {each['stage']:,} env steps"


def _limits(saved: dict[str, Any]) -> tuple[float, float]:
    known = [v for each in saved["results"] for v in (each["noise"][PART][n] for n in ("b_simple", "low", "high")) if v]
    known += [cell["noise"][PART]["b_simple"] for cell in saved["cells"] if cell["noise"][PART]["b_simple"]]
    known += [paper[name] for paper in saved["paper"] for name in ("b_simple_early", "b_simple_end")]
    return (min(known) / 1.6, 1.6 * max(known)) if known else (1.0, 1e6)


def _rows(saved: dict[str, Any]) -> list[tuple[Any, ...]]:
    names = ("b_simple", "low", "high", "resolved")
    rows = []
    for each in saved["results"]:
        for part, pooled in each["noise"].items():
            rows.append((each["game"], each["stage"], part, "all", *(pooled[n] for n in names), each["env_steps"]))
    for cell in saved["cells"]:
        for part, scale in cell["noise"].items():
            rows.append(
                (cell["game"], cell["stage"], part, cell["seed"], *(scale[n] for n in names), cell["env_steps"])
            )
    return rows


def _table(saved: dict[str, Any]) -> Table:
    head = (
        "game",
        "stage",
        "B_simple, policy (env steps)",
        "of these very seeds",
        "seeds: least to most",
        "value and entropy",
    )
    head += ("growth", "design effect", "return", "env steps", "the paper's: early, end")
    paper = {each["game"]: each for each in saved["paper"]}
    return Table(head, [_line(each, paper.get(each["game"])) for each in saved["results"]])


def _line(each: dict[str, Any], paper: dict[str, Any] | None) -> tuple[str, ...]:
    pooled, rest = each["noise"][PART], each["noise"]["rest"]
    growth, doubt = (each["growth"] or {}).get(PART), "" if pooled["resolved"] else ", unresolved"
    seeds = f"{_end(pooled['least'], '?')} to {_end(pooled['most'], '?')}"
    return (
        each["game"],
        stage_name(each["stage"]),
        with_interval(pooled["b_simple"], pooled["low"], pooled["high"]) + doubt,
        f"{round3(pooled['within_low'])} to " + _end(pooled["within_high"]),
        f"{seeds}; {pooled['n_resolved']} of {pooled['n_seeds']} resolved",
        with_interval(rest["b_simple"], rest["low"], rest["high"]),
        with_interval(growth["value"], growth["low"], growth["high"]) if growth else "",
        "" if each["design_effect"] is None else round3(each["design_effect"]),
        "" if each["return_mean"] is None else f"{each['return_mean']:.4g}",
        f"{each['env_steps']:,}",
        f"{round3(paper['b_simple_early'])}, {round3(paper['b_simple_end'])}" if paper else "",
    )


def _end(value: float | None, unknown: str = "no upper limit") -> str:
    return unknown if value is None else round3(value)


def _caption(saved: dict[str, Any]) -> str:
    ours = saved["results"][0]["protocol"].removeprefix(saved["results"][0]["game"]).strip()
    theirs = "; ".join(dict.fromkeys(each["protocol"] for each in saved["paper"]))
    return (
        f"Large markers: all seeds of a game together, with their {saved['confidence']:.0%} interval "
        f"(arrow: no limit on that side; hollow: unresolved). Dots: one policy each. Ours: {ours}."
        + (f" The paper's, another protocol: {theirs}." if theirs else "")
    )


def origin(saved: dict[str, Any]) -> Origin:
    """Of all that compare.json holds."""
    seeds = tuple(sorted({cell["seed"] for cell in saved["cells"]}))
    n = len(saved["cells"])
    last = [saved["provenance"] | {"command": saved["command"]}]
    return Origin(f"{n} polic{'ies' if n > 1 else 'y'}", seeds, commits(last), commands(last))
