"""Fresh policies: several initialisations, each measured alike and kept on disk, and the spread between them.

What one seed's interval says is how well that one policy is known. How much the noise scale of *a* fresh policy varies
is another number, and no amount of env steps on one of them shows it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rl_gns.config import RunConfig, config_id
from rl_gns.measurement import Initialisations
from rl_gns.records import PARTS, to_json
from rl_gns.rundir import read_json, write_json
from rl_gns.study.measure import Watch, measure
from rl_gns.study.pooled import pool

WatchSeed = Callable[[int], Watch]


def measure_fresh(
    config: RunConfig,
    initialisations: int,
    max_env_steps: int,
    precision: float,
    root: Path,
    watch: WatchSeed = lambda seed: lambda env_steps, noise: None,
) -> dict[str, Any]:
    """The measurement of the fresh policy of `config.seed`, as it is on disk, with those of the seeds that follow.

    Each of them may take `max_env_steps`. They lie in `directory(...)`; those that are there are not measured again.
    """
    path, seeds = directory(config, max_env_steps, precision, root), range(config.seed, config.seed + initialisations)
    each = []
    for seed in seeds:
        file = path / f"seed{seed}.json"
        if not file.exists():
            path.mkdir(parents=True, exist_ok=True)
            seeded = dataclasses.replace(config, seed=seed)
            write_json(file, to_json(measure(seeded, max_env_steps, precision, watch(seed))))
        each.append(read_json(file))
    return each[0] | {"initialisations": to_json(together(list(seeds), each)) if initialisations > 1 else None}


def directory(config: RunConfig, max_env_steps: int, precision: float, root: Path) -> Path:
    """Where the initialisations of one measurement lie: named after everything that changes their numbers."""
    return root / f"fresh-{config.env}-{fresh_digest(config, max_env_steps, precision)}"


def fresh_digest(config: RunConfig, max_env_steps: int, precision: float) -> str:
    """Eight hex digits over everything that changes the numbers of one measurement of fresh policies but the seed."""
    facts = [config_id(dataclasses.replace(config, seed=0)), max_env_steps, precision]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]


def together(seeds: list[int], each: Sequence[dict[str, Any]]) -> Initialisations:
    """What the measurements (as on disk) of several initialisations say together."""
    noise = [measured["noise"] for measured in each]
    return Initialisations(
        seeds=seeds,
        env_steps=sum(measured["env_steps"] for measured in each),
        spread={part: pool([scales[part] for scales in noise], noise[0][part]["confidence"]) for part in PARTS},
        noise=noise,
    )
