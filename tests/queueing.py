"""A queueing simulation of a rollout, to hold the formulas of `rl_gns.study.capacity` against: K actors that work their
blocks off in turn with random service times, then one link, then one driver, each first come, first served."""

from __future__ import annotations

import heapq

import numpy as np


def service_times(rng: np.random.Generator, mean: float, scatter: float, count: int) -> np.ndarray:
    """[count] seconds, gamma distributed: mean `mean`, standard deviation `scatter` x mean."""
    return rng.gamma(1 / scatter**2, mean * scatter**2, count) if scatter else np.full(count, mean)


def collect_seconds(
    rng: np.random.Generator, actors: int, blocks: int, mean: float, scatter: float, network: float, driver: float
) -> float:
    """When the last block has passed the driver; block c is actor c mod K's, as `crew` hands them out."""
    took = service_times(rng, mean, scatter, blocks)
    events = [(took[c], "sent", c) for c in range(min(actors, blocks))]  # (time, what, block)
    heapq.heapify(events)
    free = {"sent": 0.0, "arrived": 0.0}  # when the link, and then the driver, is free again
    while True:
        now, what, c = heapq.heappop(events)
        if what == "handled":
            blocks -= 1
            if not blocks:
                return now
            continue
        free[what] = max(now, free[what]) + (network if what == "sent" else driver)
        heapq.heappush(events, (free[what], "arrived" if what == "sent" else "handled", c))
        if what == "sent" and c + actors < len(took):
            heapq.heappush(events, (now + took[c + actors], "sent", c + actors))


def mean_seconds(seed: int, rollouts: int, *what: float) -> float:
    """Mean of `collect_seconds` over so many rollouts."""
    rng = np.random.default_rng(seed)
    return float(np.mean([collect_seconds(rng, *what) for _ in range(rollouts)]))
