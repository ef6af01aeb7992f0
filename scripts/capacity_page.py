#!/usr/bin/env python
"""Remake what docs/capacity.md says of kept measurements: scripts/capacity_page.py docs/results/2026-11-28-capacity

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
Line = tuple[Cluster, Rollout]


def made(folder: Path) -> str:
    """Everything between the marks."""
    files, config = sorted(folder.glob("*.json")), load(find("pong"))
    kept_files = {file.stem: json.loads(file.read_text()) for file in files}
    rates = kept(files[-1], config)
    origin = "; ".join(filter(None, (f"`--config pong`, {EACH}", machine(kept_files))))
    about = (
        f"**Clusters**, from the rates of `{files[-1].name}` ({origin}), at the B at which every core has a collector."
    )
    fast = dataclasses.replace(rates, learner=STATED, learner_on="stated")
    parts = [runs({name: each["actors"] for name, each in kept_files.items()}), about]
    parts += [table(f"The learner as measured ({rates.learner_on})", config, rates)]
    parts += [table(f"A learner of {STATED:,.0f} rows/s (stated, not measured)", config, fast)]
    parts += [words(lines(config, rates), lines(config, fast), kept_files[files[-1].stem])]
    return "\n\n".join(parts) + "\n\n"


def machine(files: dict[str, dict[str, Any]]) -> str:
    """What all files were measured on, where they say it; ValueError where that is not one machine."""
    cpus = sorted({file["provenance"]["machine"]["cpu"] for file in files.values() if "provenance" in file})
    if len(cpus) > 1:
        raise ValueError(f"files of {len(cpus)} machines ({', '.join(cpus)}): give each machine a folder of its own")
    return "".join(cpus)


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
    mostly = "Mostly that is the learner's rate held against itself:" * (min(shares) > 50)
    return (
        "\n".join(said) + f"\n\nEnv steps a second are predicted at {_ends(whole)} times what was measured. {mostly}\n"
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


def words(measured: list[Line], fast: list[Line], file: dict[str, Any]) -> str:
    """What the tables come to."""
    (small, first), (large, last) = measured[0], measured[-1]
    return "\n".join(
        (
            f"With the learner measured a rollout of {small.cores} cores takes "
            f"{first.learn_seconds / first.collect_seconds:.0f} times as long to learn from as to collect, and more",
            f"cores shorten collecting alone: a million env steps cost {round3(_core_hours(small, first))} core-hours "
            f"with {small.cores} of them and {round3(_core_hours(large, last))} with {large.cores:,}.",
            f"Behind a learner of {STATED:,.0f} rows/s the fastest of these is {_fastest(fast)};",
            driver_words(fast[-1][1], file),
            useful(large.cores, last.batch_size),
        )
    )


def _fastest(those: list[Line]) -> str:
    return _name(max(those, key=lambda line: line[1].env_steps_per_second)[0])


def driver_words(last: Rollout, file: dict[str, Any]) -> str:
    """What holds the largest cluster up, by the driver's straight line and by a steeper one."""
    longest, steep = last.busy[last.bottleneck], steeper(last, file)
    busiest = "driver" if steep > longest else last.bottleneck
    between = " and ".join(f"{each['actors']:,}" for each in file["driver"][-2:])
    unknown = " **So which of them it is, is not known.**" * (busiest != last.bottleneck)
    return "\n".join(
        (
            f"the last is held up by the {last.bottleneck} ({round3(longest)} s) on the driver's straight line "
            f"({round3(last.busy['driver'])} s: it looks at every actor for each",
            f"answer), and by the {busiest} if that goes on as between {between} actors ({round3(steep)} s).{unknown}",
        )
    )


def steeper(last: Rollout, file: dict[str, Any]) -> float:
    """Seconds of the driver on the line through the two largest crews that it was timed with."""
    (one, two), rates, first = file["driver"][-2:], file["rates"], file["driver"][0]
    slope = (two["measured"] - one["measured"]) / (two["actors"] - one["actors"])
    a_block = rates["handling_seconds"] - (first["line"] - rates["handling_seconds_per_actor"] * first["actors"])
    crew = two["measured"] + slope * (last.actors - two["actors"])
    return last.collectors * (a_block + rates["copying_seconds"] + crew)


def useful(cores: int, batch: int) -> str:
    """The largest batch beside the noise scales of seven games (policy part)."""
    rows = json.loads((ROOT / "docs" / GAMES / "compare.json").read_text())["results"]
    found = [(row["noise"]["policy"], f"{row['game']}, {_stage(row)}") for row in rows]
    each, where = max(
        ((each, where) for each, where in found if each["resolved"]), key=lambda pair: pair[0]["b_simple"]
    )
    size, low, high = each["b_simple"], each["low"], each["high"]
    open_ended = sum(each["high"] is None for each, _ in found)
    return "\n".join(
        (
            f"The batch that gives {cores:,} cores work is {batch:,} env steps: {batch / size:.0f} times the largest "
            "noise scale that is resolved",
            f"([seven games]({GAMES}), 42 x 42: {round3(size)} [{round3(low)} to {round3(high)}], {where}).",
            f"That a game could use it is not excluded, since {open_ended} of those {len(found)} noise scales have no "
            "upper end; nothing that we measured says that one",
            "can. Such a cluster is for many runs at once, which is what `rl-gns sweep` does with it.",
        )
    )


def _stage(row: dict[str, Any]) -> str:
    return f"{row['stage']:,} env steps" if row["stage"] else "fresh"


def _name(cluster: Cluster) -> str:
    return f"{cluster.nodes} x {cluster.cpus}"


def _core_hours(cluster: Cluster, one: Rollout) -> float:
    """Per million env steps."""
    return 1e6 / one.env_steps_per_second / 3600 * cluster.cores


if __name__ == "__main__":
    folder = Path(sys.argv[1]).resolve()
    PAGE.write_text(MADE.sub(lambda at: f"{folder.relative_to(ROOT)}{at[2]}{made(folder)}", PAGE.read_text()))
