"""`--cluster nodes=100,cpus=64,gpus=8`: the words of a cluster that is not here."""

from __future__ import annotations

import difflib
import math

from rl_gns.config import ConfigError
from rl_gns.config_file import shown
from rl_gns.study.capacity import Cluster

NETWORK_GBIT = 10.0
"""Gbit/s of a node where the user says nothing (a guess; Ray's own transfers were seen to stay at 2 of 10: its issue
42632)."""
MOST: dict[str, int | float] = {"nodes": 100_000, "cpus": 4096, "gpus": 64, "network": 10_000.0}
MOST |= {"memory": 1e6, "actors": 10**7}
"""Beyond these a number is a slip of the hand (a guess); the keys are those that exist, with their type."""
NEEDED = ("nodes", "cpus")


def parse_cluster(text: str, memory_bytes: int) -> Cluster:
    """The cluster in those words; `memory_bytes` of a node where they do not say. ConfigError in one line."""
    given: dict[str, int | float] = {}
    for word in text.split(","):
        key, equals, value = (part.strip() for part in word.partition("="))
        if not equals:
            raise _wrong(f"{shown(word)} is no key=value; nodes=100,cpus=64,gpus=8 is right")
        if key == "learners":
            raise _wrong(f"{shown(word)}: the plan knows one learner, whatever its rate (--learner-rate); leave it out")
        if key not in MOST:
            near = difflib.get_close_matches(key, MOST, n=1, cutoff=0.0)[0]
            raise _wrong(f"{shown(key)} is none of {', '.join(MOST)}; the nearest is {near}")
        if key in given:
            raise _wrong(f"{key} is given twice; once is enough")
        given[key] = _number(key, value)
    for key in NEEDED:
        if key not in given:
            raise _wrong(f"{key} is missing in {shown(text)}; nodes=100,cpus=64 is the least")
    nodes, cpus, gpus = int(given["nodes"]), int(given["cpus"]), int(given.get("gpus", 0))
    memory, network = given.get("memory", memory_bytes / 2**30), given.get("network", NETWORK_GBIT)
    return Cluster(nodes, cpus, gpus, float(network), float(memory), int(given.get("actors", nodes * cpus)))


def said(text: str) -> set[str]:
    """The keys that the user gave."""
    return {word.partition("=")[0].strip() for word in text.split(",")}


def _number(key: str, text: str) -> int | float:
    kind = type(MOST[key])
    try:
        value = kind(text) if len(text) <= 20 else math.nan
    except ValueError:
        value = math.nan
    least = 0 if key == "gpus" else 1 if kind is int else 0.001
    if math.isnan(value):
        raise _wrong(f"{key}={shown(text)} is no {'whole ' if kind is int else ''}number; {key}={least} is the least")
    if not least <= value <= MOST[key]:
        raise _wrong(f"{key}={value:g} will not do; {least:g} to {MOST[key]:g} will")
    return value


def _wrong(words: str) -> ConfigError:
    return ConfigError(f"--cluster: {words}")
