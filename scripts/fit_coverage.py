"""How often a 90 % interval of `rl-gns fit` holds the truth, on simulated versions of the shipped grids.

    python scripts/fit_coverage.py [--repeats 400] [--seed 0] [--only WORDS] > table.md

Truth: S = S_min (1 + B_crit / B) at the best learning rate x*(B), where eps(B) = eps_max / (1 + B_0 / B)^alpha
(McCandlish et al. 2018, A.3), times exp(kappa (x - x*)^2 + skew (x - x*)^3), times lognormal scatter. The rates tried
go with the square root of B, so x* wanders across the grid. Runs end at a budget of env steps and are then censored.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

import numpy as np

from rl_gns.noise.front import Front, NoFront, fit_front


@dataclass(frozen=True)
class Grid:
    """A sweep to simulate."""

    batch_sizes: tuple[float, ...]
    factors: tuple[float, ...]
    """Learning rates tried, times the rule's."""
    seeds: int
    sigma: float
    """Scatter of ln S between seeds."""
    b_crit: float
    s_min: float = 100.0
    kappa: float = 0.3
    skew: float = 0.0
    alpha: float = 0.5
    budget: float | None = None
    """Env steps at which a run is stopped, in units of S_min B_crit (1 + B / B_crit): the mean run needs 1."""
    epochs: int = 1
    tuned: bool = True
    """Whether the learning rate is given to the fit."""


CARTPOLE = Grid((32, 64, 128, 256, 512, 1024, 2048), (0.5, 1.0, 2.0), 5, 0.25, 250.0)
SHIPPED = Grid((16, 32, 64, 128, 512, 2048), (0.4, 1.0, 2.4), 5, 0.5, 100.0)
"""sweeps/cartpole; scatter and knee are about what it found."""
PONG = Grid((128, 256, 512, 1024), (1.0,), 2, 0.15, 400.0, kappa=0.0)

GRIDS = {
    "7 sizes x 3 rates x 5 seeds": CARTPOLE,
    "the same, scatter 0.5": replace(CARTPOLE, sigma=0.5),
    "sweeps/cartpole": SHIPPED,
    "sweeps/cartpole, censored": replace(SHIPPED, budget=3.0),
    "6 sizes, knee near the largest": replace(CARTPOLE, batch_sizes=CARTPOLE.batch_sizes[:6], b_crit=800.0),
    "a sixth of the runs censored": replace(CARTPOLE, budget=1.4),
    "4 epochs": replace(CARTPOLE, epochs=4),
    "weak curvature in ln rate": replace(CARTPOLE, kappa=0.08),
    "optimum leaves the grid (alpha 1)": replace(CARTPOLE, alpha=1.0),
    "skewed in ln rate": replace(CARTPOLE, skew=0.15),
    "one rate, 4 sizes x 2 seeds": PONG,
    "one rate, 4 sizes x 2 seeds, scatter 0.3": replace(PONG, sigma=0.3),
    "one rate, 4 sizes x 2 seeds, censored": replace(PONG, budget=1.2),
    "one rate, 7 sizes x 1 seed": replace(PONG, batch_sizes=CARTPOLE.batch_sizes, seeds=1),
}


def simulate(grid: Grid, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Columns of one simulated sweep, as `fit_front` takes them."""
    shape = np.meshgrid(grid.batch_sizes, grid.factors, np.arange(grid.seeds), indexing="ij")
    batch, factor = shape[0].ravel().astype(float), shape[1].ravel()
    middle = np.sqrt(grid.batch_sizes[0] * grid.batch_sizes[-1])
    rate = 1e-3 * factor * np.sqrt(batch / middle)
    best = 1e-3 * (7 / (1 + 6 * middle / batch)) ** grid.alpha
    away = np.log(rate / best)
    front = grid.s_min * (1 + grid.b_crit / batch)
    steps = front * np.exp(grid.kappa * away**2 + grid.skew * away**3 + grid.sigma * rng.standard_normal(len(batch)))
    cap = np.full(len(batch), np.inf) if grid.budget is None else grid.budget * front
    columns = {"batch_size": batch, "optimizer_steps": np.minimum(steps, cap), "reached": steps <= cap}
    return columns | ({"learning_rate": rate} if grid.tuned and len(grid.factors) > 1 else {})


def one(grid: Grid, rng: np.random.Generator) -> Front | None:
    try:
        return fit_front(**simulate(grid, rng), epochs=grid.epochs, seed=int(rng.integers(2**31)))
    except NoFront:
        return None


def coverage(grid: Grid, repeats: int, seed: int) -> dict[str, float]:
    """Share of `repeats` sweeps whose interval holds B_crit, and what else the table shows."""
    rng = np.random.default_rng(seed)
    fronts = [front for _ in range(repeats) if (front := one(grid, rng)) is not None]
    held = [f.low <= grid.b_crit <= (np.inf if f.high is None else f.high) for f in fronts]
    found = [f.b_crit for f in fronts if f.b_crit]
    widths = [(np.inf if f.high is None else f.high) / max(f.low, 1e-9) for f in fronts]
    return {
        "fitted": len(fronts) / repeats,
        "held": float(np.mean(held)) if held else float("nan"),
        "resolved": float(np.mean([f.resolved for f in fronts])),
        "median": float(np.median(found)) / grid.b_crit,
        "width": float(np.median(widths)),
        "censored": float(np.mean([1 - f.n_reached / f.n for f in fronts])),
        "left_out": float(np.mean([len(f.widen) for f in fronts])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="grids whose name holds these words")
    given = parser.parse_args()
    print("| grid | held | resolved | median B_crit / truth | median high / low | censored | sizes left out | fitted |")
    print("|---|---|---|---|---|---|---|---|")
    for name, grid in GRIDS.items():
        if given.only in name:
            c = coverage(grid, given.repeats, given.seed)
            print(
                f"| {name} | {c['held']:.1%} | {c['resolved']:.0%} | {c['median']:.2f} | {c['width']:.2f} | "
                f"{c['censored']:.0%} | {c['left_out']:.1f} | {c['fitted']:.0%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
