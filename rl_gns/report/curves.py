"""Learning curves, by env steps and by optimizer steps: runs side by side, or the cells of a sweep."""

from __future__ import annotations

from collections.abc import Sequence

from rl_gns.report import drawing
from rl_gns.report.drawing import COLOURS, DASHES, Drawn, Table
from rl_gns.report.found import FoundRun, FoundSweep, joined
from rl_gns.report.noise_figures import series
from rl_gns.report.protocols import mixed

COLUMNS = ("env", "run", "seed", "batch_size_env_steps", "env_steps", "optimizer_steps")
COLUMNS += ("return_mean", "evaluation_return")
HEAD = ("run", "seed", "B (env steps)", "learning rate", "env steps E", "optimizer steps S", "last return")
MOST_CURVES = 60
"""Of one sweep's figure, those of the first seeds: more cannot be told apart (a choice)."""


def of_runs(runs: Sequence[FoundRun], name: str) -> list[Drawn]:
    """A figure a world, one line a run; runs without a return are left out."""
    worlds: dict[str, list[FoundRun]] = {}
    for run in runs:
        if _has_return(run):
            worlds.setdefault(run.config.env, []).append(run)
    return [
        _drawn(env, its, [run.name for run in its], name if len(worlds) == 1 else f"{name}-{drawing.slug(env)}")
        for env, its in worlds.items()
    ]


def of_sweep(found: FoundSweep, name: str) -> Drawn | None:
    """The runs at the chosen rates, coloured by batch size; None where no log of theirs was kept."""
    known = [run for run in found.chosen_runs if _has_return(run)]
    runs = sorted(sorted(known, key=_seed)[:MOST_CURVES], key=lambda run: (run.config.batch.size, _seed(run)))
    if not runs:
        return None
    labels = [f"{_variant(found, run)}B = {run.config.batch.size:,}" for run in runs]
    return _drawn(found.env, runs, labels, name, f" ({found.name})", len(known) - len(runs))


def _has_return(run: FoundRun) -> bool:
    return any(record["return_mean"] is not None for record in run.records)


def _seed(run: FoundRun) -> int:
    return run.config.seed


def _variant(found: FoundSweep, run: FoundRun) -> str:
    named = {cell["name"]: cell.get("variant", "") for cell in found.cells()}.get(run.path.name)
    return f"{named}, " if named else ""


def _drawn(env: str, runs: list[FoundRun], labels: list[str], name: str, of: str = "", more: int = 0) -> Drawn:
    figure, (by_env, by_steps) = drawing.panels(2, 1, 6.0)
    style = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    rows, lines = [], []
    for run, label in zip(runs, labels, strict=True):
        records, i = drawing.thinned([r for r in run.records if r["return_mean"] is not None]), style[label]
        for axes, along in ((by_env, "env_steps"), (by_steps, "optimizer_steps")):
            dashes = DASHES[(i + i // len(COLOURS)) % len(DASHES)]  # 36 looks, no two of six alike in either
            look = {"color": COLOURS[i % len(COLOURS)], "ls": dashes, "lw": 1.1}
            axes.plot(series(records, along), series(records, "return_mean"), label=label, **look)
        of_run = (env, run.name, run.config.seed)
        rows += [(*of_run, *(r.get(column) for column in _FIELDS)) for r in records]
        lines.append(_line(run))
    for axes, words in ((by_env, "env steps E"), (by_steps, "optimizer steps S")):
        axes.set(xlabel=words, ylabel=f"return (mean of the last\n{runs[0].config.return_episodes} episodes)")
        drawing.plain_axis(axes, "x")
    drawing.legend_below(figure, by_env, columns=3 if max(map(len, style)) < 16 else 1)
    drawing.mark_forced(figure, mixed(runs))
    return Drawn(
        name=name,
        title=f"{env}: learning curves{of}",
        figure=figure,
        columns=COLUMNS,
        rows=rows,
        table=Table(HEAD, lines),
        caption="The same runs along fresh env steps (what experience costs) and along optimizer steps (what a "
        "larger batch saves). One line a run." + f" The runs of the last seeds, {more}, are left out." * bool(more),
        origin=joined([run.origin for run in runs], f"{len(runs)} run{'s' * (len(runs) > 1)}"),
    )


_FIELDS = ("batch_size", "env_steps", "optimizer_steps", "return_mean", "evaluation_return")


def _line(run: FoundRun) -> tuple[str, ...]:
    sizes = [record["batch_size"] for record in run.records]
    size = f"{sizes[0]:,}" if len(set(sizes)) == 1 else f"{min(sizes):,} to {max(sizes):,}"
    last = run.records[-1]
    steps = (f"{last['env_steps']:,}", f"{last['optimizer_steps']:,}")
    return (run.name, str(run.config.seed), size, f"{last['learning_rate']:.3g}", *steps, f"{last['return_mean']:.4g}")
