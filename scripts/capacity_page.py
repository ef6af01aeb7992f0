#!/usr/bin/env python
"""Remake what docs/capacity.md says of kept measurements: scripts/capacity_page.py docs/results/2026-11-24-capacity

DIR holds what scripts/measure_capacity.py wrote; the tables are of the rates of its last file by name. What stands
between the page's two marks is written anew: runs beside predictions, clusters of 16 to 10,240 cores, and the words.
"""

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any

from rl_gns.config import RunConfig
from rl_gns.config_file import find, load
from rl_gns.digits import round3
from rl_gns.study.capacity import Cluster, Rates, Rollout, batch_for_all, most_that_fits, predict
from rl_gns.study.cluster_words import parse_cluster
from rl_gns.study.rates import kept

ROOT = Path(__file__).resolve().parent.parent
PAGE, GAMES = ROOT / "docs" / "capacity.md", "results/2026-11-23-compare"
MADE = re.compile(r"(?<=<!-- made from )(\S+)( by scripts/capacity_page.py -->\n)(.*)(?=<!-- made -->)", re.DOTALL)
CLUSTERS = ((1, 16), (1, 64), (4, 64), (16, 64), (100, 64), (160, 64))
EACH = "network=10,memory=256"
STATED = 200_000.0
"""Rows a second of a learner that nobody measured: to see what would break next."""

BEFORE_COPYING = """
**These rates and runs were kept before the driver's copy of a block was timed** (for Pong 3.7 MB to its place in the
rollout, 1 to 7 ms where it was looked at since). The copy is in the learner's rate and not in the driver's: predictions
of collecting lack it, and so do the driver's seconds below, 10 to 72 s for the 10,240 blocks of the last line. Behind a
learner of a stated rate it is in nothing. The measured runs have it in collecting; they have the weights' way out of
the learner (less than the 16 to 21 ms of publishing) in learning, where the predictions have it in collecting.
""".strip()

Line = tuple[Cluster, Rollout]


def made(folder: Path) -> str:
    """Everything between the marks."""
    files, config = sorted(folder.glob("*.json")), load(find("pong"))
    rates = kept(files[-1], config)
    fast = dataclasses.replace(rates, learner=STATED, learner_on="stated")
    about = (
        f"**Clusters**, from the rates of `{files[-1].name}` (`--config pong`, {EACH}), at the B at which every core"
    )
    parts = [runs({file.stem: json.loads(file.read_text())["actors"] for file in files}), before_copying(rates)]
    parts += [about + " has a collector.", table(f"The learner as measured ({rates.learner_on})", config, rates)]
    parts += [table(f"A learner of {STATED:,.0f} rows/s (stated, not measured)", config, fast)]
    parts += [words(lines(config, rates), lines(config, fast))]
    return "\n\n".join(part for part in parts if part) + "\n\n"


def runs(rows: dict[str, list[dict[str, Any]]]) -> str:
    """Predicted beside measured."""
    said = ["| file | actors | env steps/s, predicted | measured | ratio | of collecting's seconds | of learning's |"]
    said.append("|---|---|---|---|---|---|---|")
    for name, row in ((name, row) for name, each in rows.items() for row in each):
        rate = row["predicted_env_steps_per_second"], row["measured_env_steps_per_second"]
        ratios = " | ".join(f"{ratio(row, what):.2f}" for what in ("env_steps_per_second", "collect", "learn"))
        said.append(f"| {name} | {row['actors']} | {rate[0]:,.0f} | {rate[1]:,.0f} | {ratios} |")
    every = [row for each in rows.values() for row in each]
    whole, collecting = ([ratio(row, what) for row in every] for what in ("env_steps_per_second", "collect"))
    shares = [100 * row["measured_learn_seconds"] / _seconds(row) for row in every]
    return (
        "\n".join(said)
        + f"\n\nEnv steps a second are predicted at {_ends(whole)} times what was measured. Mostly that is "
        "the learner's rate held against itself:\n"
        f"learning is {_ends(shares, 0)} % of each measured rollout. **Collecting, the part that K actors change, is "
        f"predicted at {_ends(collecting)} times what it took.**"
    )


def ratio(row: dict[str, Any], what: str) -> float:
    """Predicted over measured."""
    name = what if what.endswith("second") else f"{what}_seconds"
    return row[f"predicted_{name}"] / row[f"measured_{name}"]


def _seconds(row: dict[str, Any]) -> float:
    return row["measured_collect_seconds"] + row["measured_learn_seconds"]


def _ends(values: list[float], digits: int = 2) -> str:
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}"


def before_copying(rates: Rates) -> str:
    """What rates leave out that were kept before it was timed."""
    return "" if rates.copying_seconds is not None else BEFORE_COPYING


def lines(config: RunConfig, rates: Rates) -> list[Line]:
    """Each cluster at the least B that gives every core a collector."""
    clusters = [parse_cluster(f"nodes={nodes},cpus={cpus},{EACH}", 0) for nodes, cpus in CLUSTERS]
    sizes = [max(config.batch.size, batch_for_all(config, cluster)) for cluster in clusters]
    return [(at, predict(config, size, rates, at)) for at, size in zip(clusters, sizes, strict=True)]


def table(title: str, config: RunConfig, rates: Rates) -> str:
    head = ("nodes x cores", "B", "env steps/s", "bottleneck", "collect, s", "learner, s", "network, s", "weights, s")
    head += ("driver, s", "core-hours per million env steps", "largest B that fits")
    said = [f"**{title}**", "", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for at, one in lines(config, rates):
        seconds = one.collect_seconds, *(one.busy[name] for name in ("learner", "network", "weights", "driver"))
        cells = [_name(at), f"{one.batch_size:,}", round3(one.env_steps_per_second), one.bottleneck]
        cells += [*map(round3, seconds), round3(_core_hours(at, one)), f"{most_that_fits(config, rates, at):,}"]
        said.append(f"| {' | '.join(cells)} |")
    return "\n".join(said)


def words(measured: list[Line], fast: list[Line]) -> str:
    """What the tables come to."""
    (small, first), (large, last) = measured[0], measured[-1]
    best = max(range(len(fast)), key=lambda k: fast[k][1].env_steps_per_second)
    beyond = " and ".join(
        f"{round3(one.busy['driver'])} against {round3(one.busy['learner'])} s at {_name(at)}"
        for at, one in fast[best + 1 :]
    )
    grows = f";\nbeyond it the driver, which looks at every actor for each answer, nears the learner: {beyond}"
    return "\n".join(
        (
            f"With the learner measured a rollout of {small.cores} cores takes "
            f"{first.learn_seconds / first.collect_seconds:.0f} times as long to learn from as to collect, and more",
            f"cores shorten collecting alone: a million env steps cost {round3(_core_hours(small, first))} core-hours "
            f"with {small.cores} of them and {round3(_core_hours(large, last))} with {large.cores:,}.",
            f"Behind a learner of {STATED:,.0f} rows/s the fastest of these is {_name(fast[best][0])}"
            f"{grows if beyond else ''}.",
            useful(large.cores, last.batch_size),
        )
    )


def useful(cores: int, batch: int) -> str:
    """The largest batch beside the noise scales of seven games (policy part)."""
    found = intervals()
    size, low, high, where = max(found)
    _, _, highest, at = max(found, key=lambda each: each[2])
    return "\n".join(
        (
            f"The batch that gives {cores:,} cores work is {batch:,} env steps: {batch / size:.1f} times the largest "
            "noise scale that we have an interval for",
            f"([seven games]({GAMES}), 42 x 42: {round3(size)} [{round3(low)} to {round3(high)}], {where}). It is not "
            "excluded that a game could use it, since",
            f"upper ends reach {round3(highest)} there ({at}) and some have none; nothing that we measured says that",
            "one can. Such a cluster is for many runs at once, which is what `rl-gns sweep` does with it.",
        )
    )


def intervals() -> list[tuple[float, float, float, str]]:
    """(B_simple, low, high, where): policy part, between seeds and within these very seeds, each where it resolves."""
    found = []
    for row in json.loads((ROOT / "docs" / GAMES / "compare.json").read_text())["results"]:
        policy, stage = row["noise"]["policy"], f"{row['stage']:,} env steps" if row["stage"] else "fresh"
        for unit in ("", "within_"):
            if policy[f"{unit}resolved"]:
                ends = policy[f"{unit}low"], policy[f"{unit}high"]
                found.append((policy["b_simple"], *ends, f"{row['game']}, {stage}"))
    return found


def _name(cluster: Cluster) -> str:
    return f"{cluster.nodes} x {cluster.cpus}"


def _core_hours(cluster: Cluster, one: Rollout) -> float:
    """Per million env steps."""
    return 1e6 / one.env_steps_per_second / 3600 * cluster.cores


if __name__ == "__main__":
    folder = Path(sys.argv[1]).resolve()
    PAGE.write_text(MADE.sub(lambda at: f"{folder.relative_to(ROOT)}{at[2]}{made(folder)}", PAGE.read_text()))
