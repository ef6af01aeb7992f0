"""Games beside each other: B_simple of every game and stage, from the directory of a comparison."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes

from rl_gns.comparison import stage_name
from rl_gns.digits import round3, with_interval
from rl_gns.report import compared_marks, drawing
from rl_gns.report.compared_marks import PART, stage_words
from rl_gns.report.drawing import Drawn, Table
from rl_gns.report.found import FoundComparison, Origin, commands, commits, seeds_words

COLUMNS = ("game", "stage_env_steps", "part", "seed", "b_simple_env_steps", "low", "high", "resolved", "reason")
SPREADS = ("between_low", "between_high", "within_low", "within_high")
COLUMNS += (*SPREADS, "env_steps")


def figure(found: FoundComparison, name: str) -> Drawn | None:
    """A row a game, an interval a stage, small marks the policies, open triangles the paper's values; None where
    nothing is measured yet."""
    saved = found.saved
    if not saved["results"]:
        return None
    games = [game for game in saved["games"] if any(each["game"] == game for each in saved["results"])]
    picture, axes = drawing.panels(height=1.8 + 0.75 * len(games))
    _marks(axes, saved, games)
    axes.set_xlabel("B_simple of the policy gradient (env steps)")
    axes.set_yticks(range(len(games)), games)
    axes.set_ylim(len(games) - 0.45, -0.55)
    drawing.log_axis(axes, "x")
    drawing.legend_below(picture, axes, columns=2)
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


def _marks(axes: Axes, saved: dict[str, Any], games: list[str]) -> None:
    ends, stages = compared_marks.limits(saved), sorted({each["stage"] for each in saved["results"]})
    for each in saved["results"]:
        i = stages.index(each["stage"])
        y = games.index(each["game"]) + 0.22 * (i - (len(stages) - 1) / 2)
        of_it = [c for c in saved["cells"] if (c["game"], c["stage"]) == (each["game"], each["stage"])]
        compared_marks.interval(axes, each["noise"][PART], y, i, ends)
        compared_marks.policies(axes, [cell["noise"][PART] for cell in of_it], y, i, ends)
    for value in saved["paper"]:
        if value["game"] in games:
            compared_marks.paper(axes, value, games.index(value["game"]) + 0.36)
    compared_marks.name_marks(axes, saved, stages)
    axes.set_xlim(ends)


NAMES = ("b_simple", "low", "high", "resolved", "reason")


def _rows(saved: dict[str, Any]) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for each in saved["results"]:
        for part, pooled in each["noise"].items():
            start = (each["game"], each["stage"], part, "all")
            rows.append((*start, *(pooled[n] for n in (*NAMES, *SPREADS)), each["env_steps"]))
    for cell in saved["cells"]:
        for part, scale in cell["noise"].items():
            start = (cell["game"], cell["stage"], part, cell["seed"])
            rows.append((*start, *(scale[n] for n in NAMES), *(None,) * 4, cell["env_steps"]))
    return rows


HEAD = ("game", "stage", "B_simple, policy (env steps)", "between seeds", "of these very seeds")
HEAD += ("seeds: least to most", "value and entropy", "growth", "design effect", "return", "env steps")
HEAD += ("the paper's: early, end",)


def _table(saved: dict[str, Any]) -> Table:
    paper = {each["game"]: each for each in saved["paper"]}
    return Table(HEAD, [_line(each, paper.get(each["game"])) for each in saved["results"]])


def _line(each: dict[str, Any], paper: dict[str, Any] | None) -> tuple[str, ...]:
    pooled, growth = each["noise"][PART], (each["growth"] or {}).get(PART)
    seeds = f"{_end(pooled['least'], '?')} to {_end(pooled['most'], '?')}"
    return (
        each["game"],
        stage_name(each["stage"]),
        scale_words(pooled),
        _range((pooled["between_low"], pooled["between_high"]) if pooled["unit"] == "seeds" else None),
        _range((pooled["within_low"], pooled["within_high"])),
        f"{seeds}; {pooled['n_resolved']} of {pooled['n_seeds']} resolved",
        scale_words(each["noise"]["rest"]),
        with_interval(growth["value"], growth["low"], growth["high"]) if growth else "",
        "" if each["design_effect"] is None else round3(each["design_effect"]),
        "" if each["return_mean"] is None else f"{each['return_mean']:.4g}",
        f"{each['env_steps']:,}",
        f"{round3(paper['b_simple_early'])}, {round3(paper['b_simple_end'])}" if paper else "",
    )


def scale_words(pooled: dict[str, Any]) -> str:
    """`36,500 [24,600 to 70,200]`: the headline, and why it is unresolved where it is."""
    doubt = "" if pooled["resolved"] else f", unresolved: {pooled['reason']}"
    return with_interval(pooled["b_simple"], pooled["low"], pooled["high"]) + doubt


def _range(ends: tuple[float, float | None] | None) -> str:
    return f"{round3(ends[0])} to {_end(ends[1])}" if ends else "too few"


def _end(value: float | None, unknown: str = "no upper limit") -> str:
    return unknown if value is None else round3(value)


def _caption(saved: dict[str, Any]) -> str:
    ours = saved["results"][0]["protocol"].removeprefix(saved["results"][0]["game"]).strip()
    theirs = "; ".join(dict.fromkeys(each["protocol"] for each in saved["paper"]))
    return (
        f"Large markers: all seeds of a game together, with the wider of two {saved['confidence']:.0%} intervals: "
        "between seeds, and (pale bar) that of these very seeds, from the spread within them; resolved only where both "
        "are (arrow at the frame: no limit on that side; hollow: unresolved). Small marks, one policy each: a dot at "
        f"its estimate; an arrow at its lower limit where the estimate is not above zero. Ours: {ours}."
        + (f" The paper's, another protocol: {theirs}." if theirs else "")
    )


def origin(saved: dict[str, Any]) -> Origin:
    """Of all that compare.json holds: commits of the measurements, beside that of the sitting that pooled them."""
    cells, last = saved["cells"], saved["provenance"] | {"command": saved["command"]}
    unknown = sum(not cell.get("commit") for cell in cells)
    also = [f"commit of {unknown} of them not recorded"] * (0 < unknown < len(cells))
    also += [f"pooled at {commit}" for commit in commits([last])]
    return Origin(
        n=f"{len(cells)} polic{'ies' if len(cells) > 1 else 'y'}",
        seeds=tuple(sorted({cell["seed"] for cell in cells})),
        commits=commits([{"commit": cell.get("commit")} for cell in cells]),
        commands=commands([last]),
        seeds_said=_seeds(saved),
        also=tuple(also),
        of="measurements",
    )


def _seeds(saved: dict[str, Any]) -> str:
    """`fresh seeds 0 to 4, after 200,000 env steps seeds 0 to 2`; nothing where all stages have the same."""
    stages: dict[int, set[int]] = {}
    for cell in saved["cells"]:
        stages.setdefault(cell["stage"], set()).add(cell["seed"])
    if len(set(map(frozenset, stages.values()))) < 2:
        return ""
    return ", ".join(f"{stage_words(stage)} {seeds_words(sorted(stages[stage]))}" for stage in sorted(stages))
