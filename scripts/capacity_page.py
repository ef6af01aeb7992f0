#!/usr/bin/env python
"""Clusters of 16 to 10,240 cores, as Markdown, from kept rates: scripts/capacity_page.py RATES.json"""

import dataclasses
import sys
from pathlib import Path

from rl_gns.config_file import find, load
from rl_gns.digits import round3
from rl_gns.study.capacity import Rates, batch_for_all, most_that_fits, predict
from rl_gns.study.cluster_words import parse_cluster
from rl_gns.study.rates import kept

CLUSTERS = ((1, 16), (1, 64), (4, 64), (16, 64), (100, 64), (160, 64))
EACH = "network=10,memory=256"
STATED = 200_000.0
"""Rows a second of a learner that nobody measured: to see what would break next."""


def tables(file: Path) -> str:
    """Both tables."""
    config = load(find("pong"))
    rates = kept(file, config)
    fast = dataclasses.replace(rates, learner=STATED, learner_on="stated")
    titles = (
        f"The learner as measured ({rates.learner_on})",
        f"A learner of {STATED:,.0f} rows/s (stated, not measured)",
    )
    return "\n".join(_table(title, config, known) for title, known in zip(titles, (rates, fast), strict=True))


def _table(title: str, config, rates: Rates) -> str:
    head = ("nodes x cores", "B", "env steps/s", "bottleneck", "collect, s", "learner, s", "network, s", "weights, s")
    head += ("driver, s", "core-hours per million env steps", "largest B that fits")
    lines = [f"**{title}**", "", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for nodes, cpus in CLUSTERS:
        cluster = parse_cluster(f"nodes={nodes},cpus={cpus},{EACH}", 0)
        one = predict(config, max(config.batch.size, batch_for_all(config, cluster)), rates, cluster)
        seconds = one.collect_seconds, *(one.busy[name] for name in ("learner", "network", "weights", "driver"))
        cells = [f"{nodes} x {cpus}", f"{one.batch_size:,}", round3(one.env_steps_per_second), one.bottleneck]
        cells += [round3(value) for value in seconds]
        cells.append(round3(1e6 / one.env_steps_per_second / 3600 * cluster.cores))
        lines.append(f"| {' | '.join([*cells, f'{most_that_fits(config, rates, cluster):,}'])} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(tables(Path(sys.argv[1])), end="")
