"""`rl-gns predict`: the front that one run's noise scales say lies ahead, from its directory alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rl_gns.config import ConfigError, RunConfig
from rl_gns.digits import with_interval
from rl_gns.noise.run_log import run_log
from rl_gns.noise.run_prediction import Interval, RunPrediction, predict_run
from rl_gns.rundir import RunDir


def predict(path: Path, part: str = "policy", until_env_steps: int | None = None) -> RunPrediction:
    """From the run in `path` to where it stands, or to E = `until_env_steps`; ConfigError where nothing was probed."""
    run = RunDir(path)
    config = run.config()
    records = [r for r in run.records() if until_env_steps is None or r["env_steps"] <= until_env_steps]
    found = from_records(records, config, part, config.noise.confidence)
    if found is None:
        raise ConfigError(f"{path}: no probe that counts in its {len(records):,} rollouts; noise.every says how often")
    return found


def from_records(
    records: list[dict[str, Any]], config: RunConfig, part: str, confidence: float
) -> RunPrediction | None:
    """From lines of metrics.jsonl; None where no probe counts."""
    log = run_log(records, part)
    if not len(log.probe):
        return None
    return predict_run(log, config.noise.window_env_steps, config.batch.epochs, config.batch.minibatches, confidence)


def words(found: RunPrediction) -> list[str]:
    """For people, a number a line."""
    lines = [
        f"B_crit: {interval_words(found.b_crit)} env steps an optimizer step, "
        f"{interval_words(found.b_crit_rollout)} a rollout",
        f"S_min: {interval_words(found.s_min)} optimizer steps, {interval_words(found.s_min_rollouts)} rollouts",
        f"E_min: {interval_words(found.e_min)} env steps",
        f"gamma: {interval_words(found.gamma)} (below 1 an adaptive batch size can save)",
        f"from {found.n_probes:,} probes in {found.n_blocks} blocks, near {found.covered:.0%} of the optimizer steps",
    ]
    return lines if found.resolved else [*lines, f"not resolved: {found.reason}"]


def interval_words(interval: Interval) -> str:
    """`449 [397 to 507]`, or what is known of it."""
    return with_interval(interval.value, interval.low, interval.high)
