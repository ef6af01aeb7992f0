"""A comparison as a person reads it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from rl_gns.comparison import FRESH, FrontBeside, GameAtStage, GamesCompared, Ratio
from rl_gns.digits import round3
from rl_gns.measurement import Pooled
from rl_gns.noise.run_prediction import Interval
from rl_gns.noise.scale import hopeless_of
from rl_gns.study.predict import interval_words

WIDTH = 150
"""Columns where there is no terminal."""


def show(found: GamesCompared, console: Console | None = None) -> None:
    """The tables, then what is forced and what is missing."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=WIDTH)
    for table in (policy_table(found), rest_table(found), fronts_table(found.fronts), paper_table(found)):
        if table.row_count:
            console.print(table)
    for line in words(found):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def policy_table(found: GamesCompared) -> Table:
    """A row a game and stage: the policy part."""
    headings = ("B_simple", "between seeds", "within these seeds", "single seeds", "resolved alone", "over fresh")
    title = f"B_simple of the policy part, env steps ({found.confidence:.0%} intervals)"
    table = _table(title, *headings)
    for row in found.results:
        policy = row.noise["policy"]
        few = f"{policy.n_seeds} seeds are too few"
        table.add_row(
            row.game,
            stage_words(row),
            pooled_words(policy),
            _between_words(policy) if policy.unit == "seeds" else few,
            within_words(policy),
            _extremes(policy),
            f"{policy.n_resolved} of {policy.n_seeds}",
            ratio_words(growth) if (growth := (row.growth or {}).get("policy")) else "",
        )
    return table


def rest_table(found: GamesCompared) -> Table:
    """A row a game and stage: everything else."""
    table = _table("", "value and entropy", "whole loss", "design effect", "return", "frozen env steps")
    for row in found.results:
        parts = [pooled_words(row.noise[part]) for part in ("rest", "total")]
        table.add_row(row.game, stage_words(row), *parts, _design_effect(row), _returns(row), f"{row.env_steps:,}")
    return table


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title)
    for name in ("game", "stage"):
        table.add_column(name)
    for name in headings:
        table.add_column(name, justify="right")
    return table


def stage_words(row: GameAtStage) -> str:
    """`fresh`, or the env steps."""
    return "fresh" if row.stage == FRESH else f"{row.stage:,}"


def within_words(pooled: Pooled) -> str:
    """The interval within seeds."""
    if pooled.within_resolved:
        return interval_words(Interval(pooled.b_simple, pooled.within_low, pooled.within_high))
    return _at_least(pooled.within_low)


def _between_words(pooled: Pooled) -> str:
    """The interval between seeds."""
    if pooled.b_simple is not None and pooled.between_high is not None:
        return interval_words(Interval(pooled.b_simple, pooled.between_low, pooled.between_high))
    return _at_least(pooled.between_low or 0.0)


def _at_least(low: float) -> str:
    return f"at least {round3(low)}" if low > 0 else "no limit"


def pooled_words(pooled: Pooled) -> str:
    """The headline interval, `at least` where it has no upper end, or why it says nothing."""
    if pooled.resolved:
        return interval_words(Interval(pooled.b_simple, pooled.low, pooled.high))
    estimate = "" if pooled.b_simple is None else f" (estimate {round3(pooled.b_simple)})"
    if hopeless := hopeless_of(pooled.reason):
        return f"unresolved: {'; '.join(hopeless)}{estimate}"
    return f"{_at_least(pooled.low)}{estimate}"


def ratio_words(ratio: Ratio | None) -> str:
    """`2.1 [0.9 to 5.2]`."""
    return "" if ratio is None else interval_words(Interval(ratio.value, ratio.low, ratio.high))


def _extremes(pooled: Pooled) -> str:
    least = "?" if pooled.least is None else round3(pooled.least)
    most = "no limit" if pooled.most is None else round3(pooled.most)
    return f"{least} to {most}"


def _design_effect(row: GameAtStage) -> str:
    if row.design_effect is None:
        return ""
    if row.design_effect_low is None or row.design_effect_high is None:
        return f"{row.design_effect:.2f}"
    return f"{row.design_effect:.2f} [{row.design_effect_low:.2f} to {row.design_effect_high:.2f}]"


def _returns(row: GameAtStage) -> str:
    if row.return_mean is None or row.return_least is None or row.return_most is None:
        return "no episode ended"
    return f"{row.return_mean:.4g} ({row.return_least:.4g} to {row.return_most:.4g})"


def fronts_table(fronts: Sequence[FrontBeside]) -> Table:
    """A row a goal of a sweep."""
    table = Table(title="B_crit that sweeps found, env steps an optimizer step")
    for name in (
        "game",
        "goal",
        "swept",
        "predicted by its runs",
        "predicted / swept",
        "B_simple here / swept",
        "protocol",
    ):
        table.add_column(name, justify="left" if name in ("game", "protocol") else "right")
    for front in fronts:
        swept = interval_words(Interval(front.b_crit, front.low, front.high)) if front.b_crit else front.no_b_crit
        doubt = "" if front.resolved or not front.b_crit else ", not resolved"
        table.add_row(
            front.game,
            f"{front.goal_return:g}{front.variant and f' ({front.variant})'}",
            f"{swept or 'unknown'}{doubt}",
            interval_words(Interval(front.predicted, front.predicted_low, front.predicted_high)),
            ratio_words(front.ratio),
            ratio_words(front.measured_ratio),
            front.protocol,
        )
    return table


def paper_table(found: GamesCompared) -> Table:
    """The paper's B_simple and B_crit beside ours, a row a game."""
    table = Table(title="Beside McCandlish et al. (2018), env steps")
    headings = ("game", "B_simple, ours", "theirs, early to end", "their B_crit, first to last goal", "their goals")
    for name in headings:
        table.add_column(name, justify="left" if name == "game" else "right")
    for theirs in found.paper:
        mine = [row for row in found.results if row.game == theirs.game]
        ours = "; ".join(f"{stage_words(row)}: {pooled_words(row.noise['policy'])}" for row in mine)
        table.add_row(
            theirs.game,
            ours,
            f"{theirs.b_simple_early:,.0f} to {theirs.b_simple_end:,.0f}",
            f"{theirs.b_crit_first:,.0f} to {theirs.b_crit_last:,.0f}",
            f"{theirs.first_goal:,g} to {theirs.last_goal:,g}",
        )
    return table


def words(found: GamesCompared) -> list[str]:
    """What the tables do not say."""
    lines = []
    if found.results:
        lines.append(f"Ours: {found.results[0].protocol} (and so on for each game); policy part.")
    if found.paper:
        lines += [f"Theirs: {found.paper[0].protocol}.", f"Source: {found.paper[0].source}."]
    if found.budget:
        lines.append(budget_words(found))
    lines += [f"FORCED, another protocol: {line}" for line in found.forced]
    return lines + [f"missing: {name}: {why}" for name, why in found.missing.items()]


def budget_words(found: GamesCompared) -> str:
    """What the time bought, a game and stage each."""
    bought = found.budget
    assert bought is not None
    each = "; ".join(
        f"{row.game} {stage_words(row)} " + ("unresolved" if row.precision is None else f"±{row.precision:.0%}")
        for row in found.results
    )
    return f"{bought.seconds:,.0f} s bought {bought.env_steps:,} env steps of frozen policy a game and stage: {each}."
