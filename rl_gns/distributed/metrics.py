"""A run's gauges for Prometheus, set through Ray by the process that keeps the run directory.

    Gauges(run, game, seed, records so far).show(record) after every rollout; Ray's metrics port then has
    ray_rl_gns_env_steps{run="/home/me/runs/pong", game="Pong", seed="0", ...} 81920.0

Only what is known is set. Ray (2.60, measured) forgets a gauge that is not set again within two to three of its report
intervals of 10 s, so what is no longer known leaves the port too; until then `rl_gns_b_simple_resolved` is 0.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rl_gns.records import UpdateRecord, to_json

GAUGES = {
    "rl_gns_env_steps": "E: valid fresh env steps collected so far",
    "rl_gns_optimizer_steps": "S: optimizer steps taken so far",
    "rl_gns_env_steps_per_second": "env steps used / seconds, of the newest rollout, evaluation left out",
    "rl_gns_batch_size_env_steps": "B: env steps averaged into one optimizer step",
    "rl_gns_learning_rate": "of the newest rollout's optimizer steps",
    "rl_gns_return_mean_score": "mean raw return of the last finished episodes; absent before the first",
    "rl_gns_b_simple_resolved": "1 where the policy part's B_simple is resolved, 0 where not; absent before a probe",
    "rl_gns_b_simple_env_steps": "B_simple of the policy part, pooled over training; absent where not resolved",
    "rl_gns_b_simple_low_env_steps": "lower end of its interval, also where not resolved; absent where 0",
    "rl_gns_b_simple_high_env_steps": "upper end of its interval; absent where not resolved or unbounded",
    "rl_gns_control_channel_flag": "0: reads the truth, -1: reads low, 1: reads high; absent where too few probes tell",
    "rl_gns_late_blocks": "late or duplicate blocks dropped, over the run",
    "rl_gns_replaced_actors": "actors that died, stalled or returned bad blocks and were replaced, over the run",
    "rl_gns_probe_seconds_ratio": "seconds of noise-scale probes / seconds of rollouts, over the run",
}
"""Name -> what it is, as Prometheus says it. Ray puts `ray_` before each name."""
TAGS = ("run", "game", "seed")
CONTROL = {"ok": 0.0, "reads low": -1.0, "reads high": 1.0}
SUMMED = ("late_blocks", "replaced_actors", "probe_seconds", "seconds")


class Gauges:
    """The gauges of one run. They do nothing without a Ray session, and no failure of theirs reaches the caller."""

    def __init__(self, run: Path, game: str, seed: int, records: Iterable[dict[str, Any]] = ()):
        """`run`: its directory; `records`: the lines of metrics.jsonl that the run goes on from."""
        self._tags = {"run": str(run.absolute()), "game": game, "seed": str(seed)}
        self._sums, self._failed = Counter[str](), False
        for record in records:
            self._add(record)

    def show(self, record: UpdateRecord) -> None:
        """Set what is known after it."""
        self._add(vars(record))
        ray = sys.modules.get("ray")
        if self._failed or ray is None or not ray.is_initialized():
            return
        try:
            for name, value in known(to_json(record), self._sums).items():
                _gauge(name).set(value, tags=self._tags)
        except Exception as error:
            self._failed = True
            logging.getLogger(__name__).warning("no gauges of %s from here on: %s", self._tags["run"], error)

    def _add(self, record: dict[str, Any]) -> None:
        self._sums.update({name: record.get(name, 0) for name in SUMMED})


def known(record: dict[str, Any], sums: dict[str, float]) -> dict[str, float]:
    """Gauge -> value, of those that are known; `record` as on disk, `sums` of SUMMED over the run up to it."""
    values = {
        "env_steps": record["env_steps"],
        "optimizer_steps": record["optimizer_steps"],
        "env_steps_per_second": _ratio(record["used_env_steps"], record["seconds"]),
        "batch_size_env_steps": record["batch_size"],
        "learning_rate": record["learning_rate"],
        "return_mean_score": record["return_mean"],
        "control_channel_flag": CONTROL.get(record["noise_control_flag"]),
        "late_blocks": sums["late_blocks"],
        "replaced_actors": sums["replaced_actors"],
        "probe_seconds_ratio": _ratio(sums["probe_seconds"], sums["seconds"]),
    }
    values |= _noise(record["noise"]["policy"]) if record["noise"] else {}
    return {f"rl_gns_{name}": float(value) for name, value in values.items() if value is not None}


def _noise(scale: dict[str, Any]) -> dict[str, float | None]:
    resolved = scale["resolved"]
    return {
        "b_simple_resolved": resolved,
        "b_simple_env_steps": scale["b_simple"] if resolved else None,
        "b_simple_low_env_steps": scale["low"] if scale["low"] and scale["low"] > 0 else None,
        "b_simple_high_env_steps": scale["high"] if resolved else None,
    }


def _ratio(above: float, below: float) -> float | None:
    return above / below if below > 0 else None


@functools.cache
def _gauge(name: str) -> Any:
    from ray.util.metrics import Gauge

    return Gauge(name, description=GAUGES[name], tag_keys=TAGS)
