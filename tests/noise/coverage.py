"""How often the intervals hold the truth, and what they cost: `cd tests && python -m noise.coverage` prints the tables.

A cell is simulated `repeats` times; every repeat goes through `pool_series` or `frozen_scale`. Beside them stands
the interval of one who knows the true covariance of (signal, trace): Fieller's with the normal quantile.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from rl_gns.noise import fieller, frozen_scale, pool_series
from rl_gns.records import NoiseScale

from .simulate import World, correlated, independent
from .worlds import frozen_of

RATIOS, GROUPS, RANKS = (0.5, 4.0, 16.0), (8, 32), (5, 50)
SEED, CONFIDENCE, NORMAL_QUANTILE = 20261123, 0.95, 1.96
ENV_STEPS = 1000
"""Env steps of a rollout."""


@dataclass(frozen=True)
class Stream:
    """n rollouts of one training run: AR(1) `rho`, |G|^2 from 1 - drift to 1 + drift while the trace does the opposite,
    and B doubled at half time."""

    rho: float
    n: int
    drift: float = 0.0
    doubles: bool = False
    world: World = World(4.0, 8, 5)

    def draw(self, rng: np.random.Generator, repeats: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """(signal_sq [repeats, n], noise_trace, env steps [n], true sum w trace / sum w |G|^2)."""
        size = np.ones(self.n)
        size[self.n // 2 :] += self.doubles
        slope = self.drift * np.linspace(-1, 1, self.n)
        signal_sq, trace = correlated(rng, self.world, repeats, size, self.rho, 1 + slope, 1 - slope)
        truth = self.world.ratio * (size @ (1 - slope)) / (size @ (1 + slope))
        return signal_sq, ENV_STEPS * trace, ENV_STEPS * size, ENV_STEPS * truth


@dataclass(frozen=True)
class Row:
    """What a cell showed. Shares are of all repeats; `bias` is the median of b_simple / truth."""

    coverage: float
    below: float
    """The whole interval lies below the truth."""
    above: float
    resolved: float
    width: float
    """Median log-width over that of the interval with known covariance; NaN where half of those are unbounded."""
    coverage_resolved: float
    bias_resolved: float
    ratio: float
    """Mean trace over mean signal of all repeats, over the truth."""
    known: float
    """Coverage of the interval with known covariance."""


def judge(scales: list[NoiseScale], truth: float) -> Row:
    """The row of one cell."""
    low, high = np.array([(s.low, s.high) for s in scales]).T
    means = np.array([(s.signal_sq, s.noise_trace) for s in scales])
    resolved = np.array([s.resolved for s in scales])
    cov = np.cov(means.T)
    known = np.array([fieller(*mean, cov, NORMAL_QUANTILE)[:2] for mean in means])
    held = (low <= truth) & (truth <= high)
    return Row(
        coverage=held.mean(),
        below=(high < truth).mean(),
        above=(low > truth).mean(),
        resolved=resolved.mean(),
        width=log_width(low, high) / log_width(*known.T),
        coverage_resolved=held[resolved].mean() if resolved.any() else np.nan,
        bias_resolved=np.median([s.b_simple for s in scales if s.resolved]) / truth if resolved.any() else np.nan,
        ratio=means[:, 1].mean() / means[:, 0].mean() / truth,
        known=((known[:, 0] <= truth) & (truth <= known[:, 1])).mean(),
    )


def log_width(low: np.ndarray, high: np.ndarray) -> float:
    """Median of ln(high / low); NaN where it is not finite."""
    bounded = (low > 0) & np.isfinite(high)
    widths = np.full(len(low), np.inf)
    widths[bounded] = np.log(high[bounded] / low[bounded])
    median = float(np.median(widths))
    return median if np.isfinite(median) else np.nan


def generator(cell: object) -> np.random.Generator:
    """A stream of its own for every cell, the same in every run."""
    return np.random.default_rng([SEED, *repr(cell).encode()])


def pooled(world: World, repeats: int, n: int = 40) -> Row:
    """n independent rollouts pooled over training."""
    signal_sq, trace = independent(generator((world, n)), world, repeats, n)
    return judge(_pool(signal_sq, ENV_STEPS * trace, np.full(n, ENV_STEPS), world.n_groups), world.ratio * ENV_STEPS)


def streamed(stream: Stream, repeats: int) -> Row:
    """A correlated, drifting stream pooled over training."""
    signal_sq, trace, env_steps, truth = stream.draw(generator(stream), repeats)
    return judge(_pool(signal_sq, trace, env_steps, stream.world.n_groups), truth)


def _pool(signal_sq: np.ndarray, trace: np.ndarray, env_steps: np.ndarray, n_groups: int) -> list[NoiseScale]:
    facts = {"n_groups": n_groups, "confidence": CONFIDENCE, "batch_size": env_steps}
    return [pool_series(s, t, env_steps, **facts) for s, t in zip(signal_sq, trace, strict=True)]


def frozen_scales(world: World, repeats: int, rng: np.random.Generator, rollouts: int = 1) -> list[NoiseScale]:
    """Frozen sets of `rollouts` of J groups of one env step each, so B_simple = ratio x J; the ratio is a rollout's."""
    gradients = world.group_gradients(rng, (repeats, rollouts))
    steps = np.ones((rollouts, world.n_groups))
    return [frozen_scale(frozen_of(g, 0 * g, steps), confidence=CONFIDENCE) for g in gradients]


def frozen(world: World, repeats: int) -> Row:
    """One frozen set; the ratio counts all its env steps."""
    return judge(frozen_scales(world, repeats, generator(world)), world.ratio * world.n_groups)


def worlds(tail: str) -> list[World]:
    """The grid at one tail."""
    return [World(ratio, n_groups, rank, tail) for ratio in RATIOS for n_groups in GROUPS for rank in RANKS]


STREAMS = [
    Stream(rho, n, drift, doubles)
    for rho, lengths in ((0.0, (40, 200)), (0.5, (40, 200)), (0.9, (40, 200, 600)))
    for n in lengths
    for drift in (0.0, 0.5)
    for doubles in (False, True)
]
COLUMNS = (
    "| coverage | below | above | resolved | width | coverage, resolved | bias, resolved | ratio | known covariance |"
)


def words(row: Row) -> str:
    """A table's line."""
    shares = (row.coverage, row.below, row.above, row.resolved)
    numbers = [f"{100 * x:.1f} %" for x in shares] + [f"{row.width:.2f}", f"{100 * row.coverage_resolved:.1f} %"]
    numbers += [f"{row.bias_resolved:.2f}", f"{row.ratio:.3f}", f"{100 * row.known:.1f} %"]
    return "| " + " | ".join("-" if "nan" in number else number for number in numbers) + " |"


def main(repeats: int) -> None:
    """All tables, in Markdown."""
    print(f"Seed {SEED}, {repeats:,} repeats a cell, nominal {CONFIDENCE:.0%}.\n")
    for title, judged in (("40 pooled updates", pooled), ("one frozen set", frozen)):
        print(f"**{title}**\n\n| noise | ratio | J | rank {COLUMNS}\n|{'---|' * 13}")
        for tail in ("normal", "t4", "t4 joint"):
            for w in worlds(tail):
                print(f"| {tail} | {w.ratio:g} | {w.n_groups} | {w.rank} {words(judged(w, repeats))}", flush=True)
        print()
    print(
        f"**over training, ratio 4, J = 8, rank 5**\n\n| AR(1) | rollouts | drift | B doubles {COLUMNS}\n|{'---|' * 13}"
    )
    for s in STREAMS:
        doubles = "yes" if s.doubles else "no"
        print(f"| {s.rho:g} | {s.n} | {s.drift:g} | {doubles} {words(streamed(s, repeats))}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
