"""One run over its training: return, the policy's noise scale with its band, and the batch size that was used."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from rl_gns.digits import round3, with_interval
from rl_gns.report import drawing
from rl_gns.report.drawing import BLUE, GREEN, ORANGE, SOFT, Drawn, Table
from rl_gns.report.found import FoundRun

PART_WORDS = {"policy": "policy gradient", "rest": "value and entropy", "total": "whole loss"}
COLUMNS = ("env_steps", "optimizer_steps", "return_mean", "batch_size_env_steps", "b_simple_policy_env_steps")
COLUMNS += ("low_env_steps", "high_env_steps", "resolved")
FURTHEST = 300.0
"""Times the median estimate: what lies further off would hide the rest (a choice)."""


def noise(run: FoundRun, name: str) -> Drawn | None:
    """None where the run has no records, or never measured."""
    if not any((record.get("noise") or {}).get("policy") for record in run.records):
        return None
    records = drawing.thinned(run.records)
    scales = [(record["noise"] or {}).get("policy") or {} for record in records]
    figure, (top, middle, bottom) = drawing.panels(3, 1, 6.0, sharex=True, height_ratios=[1.7, 2.8, 1.2])
    env_steps = series(records, "env_steps")
    top.plot(env_steps, series(records, "return_mean"), color=BLUE)
    top.set_ylabel("return (score)")
    band(middle, env_steps, scales, run.measured)
    drawing.legend_below(figure, middle)
    bottom.step(env_steps, series(records, "batch_size"), where="pre", color=GREEN)
    bottom.set(ylabel="batch size B\n(env steps)", xlabel="env steps E")
    drawing.log_axis(bottom, "y")
    drawing.plain_axis(bottom, "x")
    every = (
        ""
        if len(records) == len(run.records)
        else f" One rollout in {-(-len(run.records) // drawing.MOST_POINTS)} is drawn."
    )
    return Drawn(
        name=name,
        title=f"{run.config.env}: noise scale while it trains ({run.name})",
        figure=figure,
        columns=COLUMNS,
        rows=[_row(record, scale) for record, scale in zip(records, scales, strict=True)],
        table=_table(run),
        caption=f"Training return (mean of the last {run.config.return_episodes} finished episodes); B_simple of the "
        f"policy gradient, pooled over the last {run.config.noise.window_env_steps:,} env steps, with its "
        f"{run.config.noise.confidence:.0%} interval; the batch size used. A band up to the frame has no limit "
        f"there yet, or one beyond.{every}",
        origin=run.origin,
    )


def _row(record: dict[str, Any], scale: dict[str, Any]) -> tuple[Any, ...]:
    kept = (record[n] for n in ("env_steps", "optimizer_steps", "return_mean", "batch_size"))
    return (*kept, *(scale.get(n) for n in ("b_simple", "low", "high", "resolved")))


def band(axes: Axes, env_steps: np.ndarray, scales: list[dict[str, Any]], measured: dict[str, Any] | None) -> None:
    """B_simple with its interval along a run, and of the policy that was frozen at its end."""
    b_simple, low, high = (series(scales, n) for n in ("b_simple", "low", "high"))
    resolved = np.array([bool(scale.get("resolved")) for scale in scales])
    points = np.concatenate([b_simple, low[low > 0], high[resolved], *_frozen_values(measured)])
    points = points[np.isfinite(points) & (points > 0)]
    axes.set_ylabel("B_simple, policy\n(env steps)")
    if not len(points):
        return
    middle = np.median(b_simple[np.isfinite(b_simple)]) if np.isfinite(b_simple).any() else np.median(points)
    floor, ceiling = max(points.min() / 2, middle / FURTHEST), min(2.5 * points.max(), middle * FURTHEST)
    upper = np.where(np.isfinite(low), np.where(np.isfinite(high), high, ceiling), np.nan)
    words = "its interval; up to the frame: no upper limit yet"
    axes.fill_between(env_steps, np.maximum(low, floor), upper, color=ORANGE, alpha=0.18, lw=0, label=words)
    if (~resolved & np.isfinite(b_simple)).any():
        axes.plot(
            env_steps, np.where(resolved, np.nan, b_simple), ".", ms=2.5, color=SOFT, label="estimate, unresolved"
        )
    if resolved.any():
        axes.plot(env_steps, np.where(resolved, b_simple, np.nan), "-", color=ORANGE, label="estimate, resolved")
    _frozen(axes, measured, ceiling)
    axes.set_ylim(floor, ceiling)
    drawing.log_axis(axes, "y")


def _frozen_values(measured: dict[str, Any] | None) -> list[np.ndarray]:
    scale = (measured or {}).get("noise", {}).get("policy", {})
    return [series([scale], name) for name in ("b_simple", "low", "high")]


def _frozen(axes: Axes, measured: dict[str, Any] | None, ceiling: float) -> None:
    if measured is None:
        return
    scale, at = measured["noise"]["policy"], measured["policy_env_steps"]
    label = "policy frozen here and measured" + ("" if scale["resolved"] else ", unresolved")
    axes.plot([at, at], [max(scale["low"], 1e-3), scale["high"] or ceiling], "_-", color=BLUE, label=label)
    if scale["b_simple"]:
        axes.plot([at], [scale["b_simple"]], "D", ms=5, color=BLUE)


def _table(run: FoundRun) -> Table:
    lines = []
    last = (run.records[-1]["noise"] or {}) if run.records else {}
    frozen = (run.measured or {}).get("noise", {})
    for when, scales in (("at the end of the log", last), ("policy frozen", frozen)):
        for part, scale in scales.items():
            value = with_interval(scale["b_simple"], scale["low"], scale["high"])
            verdict = "yes" if scale["resolved"] else f"no: {scale['reason']}"
            lines.append((when, PART_WORDS[part], value, verdict, round3(scale["env_steps"]), str(scale["n_groups"])))
    return Table(("when", "part", "B_simple (env steps)", "resolved", "measured on (env steps)", "groups"), lines)


def series(rows: list[dict[str, Any]], name: str) -> np.ndarray:
    """That field of every row; NaN where it is missing."""
    return np.array([np.nan if row.get(name) is None else row[name] for row in rows], dtype=float)
