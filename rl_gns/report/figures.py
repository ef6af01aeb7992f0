"""Figures from run directories alone: a run's return, noise scale and batch size; a sweep's front."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from rl_gns.config import ConfigError
from rl_gns.on_disk import understood
from rl_gns.rundir import RunDir, read_json

matplotlib.use("Agg")

import matplotlib.pyplot as plt

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
"""Okabe and Ito's palette: told apart by colour-blind readers too."""


def figure(path: Path) -> Path:
    """Draw what the directory holds beside it; returns the PNG's path."""
    with understood(path):
        return front_figure(path) if (path / "sweep.json").is_file() else run_figure(path)


def run_figure(path: Path) -> Path:
    """Return, B_simple of the policy with its band, and the batch size used, over env steps."""
    records = list(RunDir(path).records())
    if not records:
        raise ConfigError(f"{path}: no run here, or none that has recorded anything yet")
    env_steps = series(records, "env_steps")
    panels, (top, middle, bottom) = plt.subplots(3, 1, sharex=True, figsize=(8, 8), height_ratios=[2, 3, 1])
    top.plot(env_steps, series(records, "return_mean"), color=BLUE)
    top.set_ylabel("return (score)")
    top.set_title(f"{path.name}: training return")
    _noise_panel(middle, env_steps, records, path)
    bottom.step(env_steps, series(records, "batch_size"), where="post", color=GREEN)
    bottom.set(ylabel="batch size B\n(env steps)", xlabel="env steps", yscale="log")
    return save(panels, path / "figure.png")


def _noise_panel(axes: plt.Axes, env_steps: np.ndarray, records: list[dict[str, Any]], path: Path) -> None:
    scales = [(r["noise"] or {}).get("policy") or {} for r in records]
    b_simple, low, high = (series(scales, name) for name in ("b_simple", "low", "high"))
    resolved = np.array([bool(s.get("resolved")) for s in scales])
    axes.set_yscale("log")
    known = np.concatenate([b_simple, low[low > 0], high[resolved]])
    known = known[np.isfinite(known)]
    if len(known):
        ceiling = 4 * known.max()
        band = np.where(np.isfinite(low), np.where(np.isfinite(high), high, ceiling), np.nan)
        axes.fill_between(env_steps, np.maximum(low, known.min() / 4), band, color=ORANGE, alpha=0.2, lw=0)
        axes.plot(env_steps, np.where(resolved, np.nan, b_simple), ".", ms=3, color=GREY, label="estimate, unresolved")
        if resolved.any():
            axes.plot(env_steps, np.where(resolved, b_simple, np.nan), ".-", color=ORANGE, label="estimate, resolved")
        axes.set_ylim(known.min() / 4, ceiling)
    _frozen_point(axes, path)
    axes.set_ylabel("B_simple, policy\n(env steps)")
    axes.set_title("gradient noise scale with its interval (band to the top: no upper limit yet)", fontsize=10)
    axes.legend(loc="lower right", fontsize=8)


def _frozen_point(axes: plt.Axes, path: Path) -> None:
    file = path / "measure.json"
    if not file.is_file():
        return
    measured = read_json(file)
    scale = measured["noise"]["policy"]
    bottom, top = axes.get_ylim()
    highest = scale["high"] or 4 * max(scale["b_simple"] or 0, scale["low"])
    axes.set_ylim(min(bottom, max(scale["low"], 1) / 2), max(top, 2 * highest))
    at, label = measured["policy_env_steps"], "policy frozen here" + ("" if scale["resolved"] else ", unresolved")
    axes.plot([at, at], [scale["low"], scale["high"] or axes.get_ylim()[1]], "_-", color=BLUE, label=label)
    axes.plot([at], [scale["b_simple"] or np.nan], "D", color=BLUE)


def front_figure(path: Path) -> Path:
    """Optimizer steps against env steps, one point a run, with the fitted front and its knee."""
    saved = read_json(path / "sweep.json")
    panel, axes = plt.subplots(figsize=(7, 5))
    for front, color in zip(saved["fronts"], (BLUE, ORANGE, GREEN, GREY) * 8, strict=False):
        variant, goal = front.get("variant", ""), front["goal_return"]
        of_front = [c for c in saved["cells"] if (c["goal_return"], c.get("variant", "")) == (goal, variant)]
        cells = [c for c in of_front if c["reached"] and c["chosen"]]
        axes.plot(
            [c["optimizer_steps"] for c in cells],
            [c["env_steps"] for c in cells],
            "o",
            ms=4,
            color=color,
            label=f"{variant}{variant and ', '}return {goal:g}: {front['reached']} of {front['cells']} runs got there",
        )
        _draw_fit(axes, front, color)
    axes.set(xscale="log", yscale="log", xlabel="optimizer steps S", ylabel="env steps E")
    axes.set_title(f"{saved['config']['env']}: steps versus examples (a point a run at its best rate, line: fit)")
    axes.legend(fontsize=8)
    return save(panel, path / "front.png")


def _draw_fit(axes: plt.Axes, front: dict[str, Any], color: str) -> None:
    """The fitted front; a star at its swept knee (none where the floor is the clip's), a diamond where the noise scale
    predicts it."""
    fit, predicted = front["front"], front["predicted"]
    if not fit or not fit["b_crit"]:
        return

    def at(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        steps = fit["s_min"] * (1 + fit["b_crit"] / batch)
        return steps, steps * batch / fit["epochs"]

    axes.plot(*at(np.geomspace(fit["batch_min"], fit["batch_max"], 100)), color=color, lw=1)
    if front.get("limited_by"):
        return
    limits = f"{fit['low']:,.0f} to " + ("?" if fit["high"] is None else f"{fit['high']:,.0f}")
    swept = f"swept knee: B_crit = {fit['b_crit']:,.0f} [{limits}]"
    axes.plot(*at(np.array([fit["b_crit"]])), "*", ms=13, color=color, label=swept)
    if predicted and predicted["b_crit"]:
        limits = f"{predicted['low']:,.0f} to " + ("?" if predicted["high"] is None else f"{predicted['high']:,.0f}")
        words = f"predicted from the noise scale: {predicted['b_crit']:,.0f} [{limits}]"
        axes.plot(*at(np.array([predicted["b_crit"]])), "D", ms=7, mfc="none", color=color, label=words)


def series(rows: list[dict[str, Any]], name: str) -> np.ndarray:
    """That field of every row; NaN where it is missing."""
    return np.array([np.nan if r.get(name) is None else r[name] for r in rows], dtype=float)


def save(panels: plt.Figure, path: Path) -> Path:
    """Write the figure and let go of it; returns its path."""
    panels.tight_layout()
    panels.savefig(path, dpi=120)
    plt.close(panels)
    return path
