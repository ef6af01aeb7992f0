#!/usr/bin/env python
"""What `rl-gns plan --cluster` predicts of this machine, held against runs with 1, 2 and 4 rollout actors on it.

    scripts/measure_capacity.py OUT.json [--config pong] [--batch-size 512] [--epochs 4] [--seconds 25]

For each number of actors rates are measured, and then it trains for so many seconds, the first two rollouts (scatter,
burn-in, allocation) left out: a machine whose speed drifts is held against itself. OUT.json holds the medians of the
rates; a line a number of actors with its own rates, predicted and measured seconds side by side; which share of the
cores others used, at rest before each; commit, versions and machine. A file that is there is not written again.
"""

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rl_gns.config import RunConfig
from rl_gns.config_file import find, load
from rl_gns.distributed import session
from rl_gns.records import to_json
from rl_gns.study.build import checked, make_learner, source
from rl_gns.study.capacity import Cluster, Rates, predict
from rl_gns.study.machine_load import share_at_rest
from rl_gns.study.provenance import whereabouts
from rl_gns.study.rates import measured
from rl_gns.trainer import Trainer

ACTORS = (1, 2, 4)
PLACES = (8, 64, 256, 1024, 2048)
"""Of the crew that the driver is timed with."""
WARM_UP = 2
"""Rollouts that do not count."""


def main() -> None:
    arguments = _arguments()
    config = load(find(arguments.config))
    batch = dataclasses.replace(config.batch, size=arguments.batch_size, epochs=arguments.epochs)
    config = checked(dataclasses.replace(config, batch=batch, total_env_steps=1 << 40))
    rows, rates, at_rest = [], [], []
    for actors in ACTORS:
        at_rest.append(share_at_rest())
        rates.append(measured(config, arguments.rate_seconds))
        rows.append(beside(config, rates[-1], actors, arguments.seconds))
    middle = median(rates)
    found = {"batch_size": config.batch.size, "epochs": config.batch.epochs, "others_used_share_of_cores": at_rest}
    found |= {"actors": rows, "driver": driver_line(config, middle), "rates": middle, "provenance": whereabouts()}
    arguments.out.write_text(json.dumps(to_json(found), indent=1) + "\n")


def median(rates: list[Rates]) -> Rates:
    """Number by number."""
    numbers = {name for name, value in vars(rates[0]).items() if isinstance(value, int | float)}
    return dataclasses.replace(
        rates[0], **{n: type(getattr(rates[0], n))(np.median([getattr(r, n) for r in rates])) for n in numbers}
    )


def driver_line(config: RunConfig, rates: Rates) -> list[dict[str, float]]:
    """The driver's seconds an answer of so many actors, one process standing for all, beside the straight line."""
    with session.start(1, 0, address="local"):
        import ray

        from rl_gns.distributed.rates import TimedHost, handling

        actor = ray.remote(TimedHost).remote(config)
        ray.get(actor.ready.remote())
        found = [(places, handling(actor, places)) for places in PLACES]
    base = found[0][1] - rates.handling_seconds_per_actor * PLACES[0]
    line = [base + rates.handling_seconds_per_actor * places for places in PLACES]
    return [{"actors": k, "measured": got, "line": on} for (k, got), on in zip(found, line, strict=True)]


def beside(config: RunConfig, rates: Rates, actors: int, seconds: float) -> dict[str, Any]:
    """Predicted and measured, of one number of actors."""
    cores = len(os.sched_getaffinity(0))
    here = Cluster(1, cores, 0, 10.0, rates.memory_bytes / 2**30, actors)
    expected = predict(config, config.batch.size, rates, here)
    got = trained(dataclasses.replace(config, actors=actors), seconds)
    names = ("env_steps_per_second", "collect_seconds", "learn_seconds")
    print(actors, {name: (getattr(expected, name), got[name]) for name in names}, file=sys.stderr, flush=True)
    predicted = {f"predicted_{name}": getattr(expected, name) for name in names}
    found = {"actors": actors, "bottleneck": expected.bottleneck, **predicted}
    return found | {f"measured_{name}": value for name, value in got.items()} | {"rates": rates}


def trained(config: RunConfig, seconds: float) -> dict[str, float]:
    """Of a run of about so many seconds. Collecting is, as in the rates, the weights' way out of the learner and what
    the source does, each block's copy to its place included. The records count the learner's `prepare` to it too, which
    is learning in the rates; so it is timed apart."""
    with source(config) as segments:
        learner, watch = make_learner(config), Stopwatch()
        for whose, name in ((learner, "weights"), (segments, "publish"), (segments, "collect")):
            setattr(whose, name, watch.timed(getattr(whose, name)))
        trainer = Trainer(config, learner, segments)
        records = trainer.run()
        for _ in range(WARM_UP):
            next(records)
        start, before, watch.seconds = time.perf_counter(), trainer.env_steps, 0.0
        rollouts = 0
        while time.perf_counter() - start < seconds or rollouts < config.noise.every:
            next(records)
            rollouts += 1
        took = time.perf_counter() - start
    rate = (trainer.env_steps - before) / took
    collect = watch.seconds / rollouts
    learn = took / rollouts - collect
    return {"env_steps_per_second": rate, "collect_seconds": collect, "learn_seconds": learn, "rollouts": rollouts}


class Stopwatch:
    """Seconds within what it was put around."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def around(*arguments: Any) -> Any:
            start = time.perf_counter()
            try:
                return work(*arguments)
            finally:
                self.seconds += time.perf_counter() - start

        return around


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--config", default="pong")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rate-seconds", type=float, default=30.0)
    parser.add_argument("--seconds", type=float, default=25.0)
    arguments = parser.parse_args()
    if arguments.out.exists():
        parser.error(f"{arguments.out} is there; give a new file")
    return arguments


if __name__ == "__main__":
    main()
