"""A cluster's plan as a person reads it."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from rl_gns.digits import round3
from rl_gns.study.capacity import Rollout
from rl_gns.study.capacity_plan import CapacityPlan
from rl_gns.study.plan_table import WIDTH
from rl_gns.study.progress import duration


def show(plan: CapacityPlan, console: Console | None = None) -> None:
    """What each resource does in a rollout, the batch sizes, then a line a question, then the warnings."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=WIDTH)
    for table in (_resources(plan), _ladder(plan)):
        console.print(table)
    for line in words(plan):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _resources(plan: CapacityPlan) -> Table:
    here = plan.cluster
    title = f"{plan.env}, {here.nodes:,} nodes x {here.cpus} cores: a rollout of B = {plan.rollout.batch_size:,}"
    table = Table(title=title)
    for name in ("resource", "busy, seconds", "of the rollout"):
        table.add_column(name, justify="left" if name == "resource" else "right")
    for name, seconds in plan.rollout.busy.items():
        mark = " (bottleneck)" if name == plan.rollout.bottleneck else ""
        table.add_row(name + mark, f"{seconds:.3g}", f"{100 * seconds / plan.rollout.seconds:.1f} %")
    waited = plan.rollout.straggler_seconds
    table.add_row("waiting for the slowest actor", f"{waited:.3g}", f"{100 * waited / plan.rollout.seconds:.1f} %")
    table.add_row("in all (parts overlap)", f"{plan.rollout.seconds:.3g}", "")
    return table


def _ladder(plan: CapacityPlan) -> Table:
    table = Table(title="Other batch sizes")
    for name in ("batch size", "actors at work", "env steps/s", "seconds a rollout", "bottleneck"):
        table.add_column(name, justify="left" if name == "bottleneck" else "right")
    for rung in [*plan.ladder[:-1:2], plan.ladder[-1]]:
        table.add_row(*cells(rung))
    return table


def cells(rung: Rollout) -> tuple[str, ...]:
    """One line of the table of batch sizes."""
    numbers = f"{rung.batch_size:,}", f"{rung.actors:,}", round3(rung.env_steps_per_second), round3(rung.seconds)
    return *numbers, rung.bottleneck


def words(plan: CapacityPlan) -> list[str]:
    """All but the tables."""
    one = plan.rollout
    used = ", ".join(f"{name} {100 * share:.1f} %" for name, share in plan.used.items())
    gpus = f" and {round3(plan.gpu_hours)} GPU-hours" if plan.cluster.gpus else ""
    bound = f"B = {plan.batch_learner_bound:,}" if plan.batch_learner_bound else "no batch that fits"
    lines = [
        f"{round3(one.env_steps_per_second)} env steps/s at B = {one.batch_size:,}; bottleneck: {one.bottleneck}.",
        f"In use: {used}.",
        f"The run's whole budget: {duration(plan.seconds)}, {round3(plan.core_hours)} core-hours{gpus}.",
        f"Every actor has work from B = {plan.batch_for_all_actors:,}; 90 % of the best rate from B = "
        f"{plan.batch_fed:,}; learning takes longer than collecting from {bound}.",
        f"The largest batch that the cluster can feed (a node's {plan.cluster.memory:.3g} GiB): B = "
        f"{plan.batch_most:,}{_at_most(plan)}. How much of it is useful is the noise scale's matter.",
        "How it is known:",
        *(f"  {name}: {how}" for name, how in plan.known.items()),
    ]
    return lines + [f"WARNING: {each}" for each in plan.warnings]


def _at_most(plan: CapacityPlan) -> str:
    last = plan.ladder[-1]
    return f", {duration(last.seconds)} a rollout" if last.batch_size == plan.batch_most else ""
