"""What `rl-gns branch` found, for people: a table of batch sizes and rules, and the answer in words."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from rl_gns.noise.branching import FALSE_ALARMS
from rl_gns.noise.run_prediction import Interval
from rl_gns.study.branch import Branching, Row

WIDTH = 150
"""Columns of the table where there is no terminal."""


def show(found: Branching, console: Console | None = None) -> None:
    """The table, then the answer and what it rests on."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=WIDTH)
    heads = ("B (env steps)", "rate", "rule", "S", "E", "score", "deficit", "of the gain", "verdict")
    table = Table(*heads, title=f"branches of {found.run} at env step {found.fork['env_steps']:,}")
    for row in sorted([found.reference, *found.rows], key=lambda r: (r.batch_size, r.rule)):
        table.add_row(*_cells(row))
    console.print(table)
    for line in words(found):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _cells(row: Row) -> list[str]:
    score = "failed" if not row.scores else f"{sum(row.scores.values()) / len(row.scores):.4g}"
    steps = ["" if n is None else f"{n:,.0f}" for n in (row.optimizer_steps, row.env_steps)]
    first = [f"{row.batch_size:,}", f"{row.learning_rate:g}"]
    if (j := row.judgement) is None:
        return [*first, "", *steps, score, "", "", "reference"]
    verdict = j.verdict if j.reason is None else f"{j.verdict}: {j.reason}"
    return [*first, row.rule, *steps, score, interval_words(j.deficit), interval_words(j.deficit_fraction), verdict]


def interval_words(interval: Interval) -> str:
    """`12 [3.1 to 20]`; what is not known stays blank."""
    if interval.value is None:
        return ""
    low = "no lower limit" if interval.low is None else f"{interval.low:.3g}"
    high = "no upper limit" if interval.high is None else f"{interval.high:.3g}"
    return f"{interval.value:.3g} [{low} to {high}]"


def words(found: Branching) -> list[str]:
    """The answer, and what it rests on, a line each."""
    plan, seeds = found.plan, f"{found.plan.seeds} seeds x {found.plan.evaluation_episodes} episodes"
    before = sum(found.fork_scores.values()) / len(found.fork_scores)
    return [
        f"Reference: B = {plan.reference:,} gains {interval_words(found.reference_gain)} from {before:.4g} "
        f"over {plan.env_steps:,} env steps ({seeds}).",
        f"Useful: {_answer(found)}",
        f"A batch size passes where its deficit is below {plan.tolerance:.0%} of that gain; each does so wrongly with "
        f"at most {FALSE_ALARMS:.0%}, under either rule ({found.confidence:.1%} intervals, two-sided).",
        *_model(found),
        f"B_simple of the policy in the run's records at the fork: {_b_simple(found)}.",
        f"Columns: {found.columns}.",
        *(f"FAILED: {name}: {reason}" for name, reason in found.failed.items()),
    ]


def _answer(found: Branching) -> str:
    b = found.bracket
    passes = "no other batch size passes" if b.largest_pass is None else f"up to {b.largest_pass:,} env steps"
    fails = "none fails" if b.smallest_fail is None else f"{b.smallest_fail:,} is too much"
    return f"{passes}; {fails}." + ("" if b.resolved else f" Not resolved: {b.reason}.")


def _model(found: Branching) -> list[str]:
    low, high = found.bracket.b_crit_low, found.bracket.b_crit_high
    if low is None and high is None:
        return []
    ends = " and ".join([f"at least {low:,.3g}"] * (low is not None) + [f"at most {high:,.3g}"] * (high is not None))
    return [f"By the model, deficit = (B - B_0) / (B + B_crit) at the best rates, B_crit is {ends} env steps."]


def _b_simple(found: Branching) -> str:
    if found.b_simple is None or found.b_simple["b_simple"] is None:
        return "none"
    scale = found.b_simple
    high = "no upper limit" if scale["high"] is None else f"{scale['high']:,.3g}"
    doubt = "" if scale["resolved"] else f"; not resolved: {scale['reason']}"
    return f"{scale['b_simple']:,.3g} [{scale['low']:,.3g} to {high}] env steps{doubt}"
