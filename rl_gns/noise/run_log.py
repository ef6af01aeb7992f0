"""A run's records, as a prediction takes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from rl_gns.noise.run_prediction import RunLog


def run_log(records: list[dict[str, Any]], part: str) -> RunLog:
    """The lines of metrics.jsonl, those without an optimizer step left out; probes that no pool takes do not count."""
    kept = [r for r in records if r["batch_env_steps"]]
    left_out = np.diff([r["probes_left_out"] for r in kept], prepend=0) > 0
    probe = [i for i, r in enumerate(kept) if r["probe_signal_sq"] is not None and not left_out[i]]
    return RunLog(
        ended_at=np.array([r["env_steps"] for r in kept], float),
        optimizer_steps=np.diff([r["optimizer_steps"] for r in kept], prepend=0).astype(float),
        batch_size=np.array([r["batch_env_steps"] for r in kept], float),
        probe=np.array(probe, int),
        signal_sq=np.array([kept[i]["probe_signal_sq"][part] for i in probe], float),
        noise_trace=np.array([kept[i]["probe_noise_trace"][part] for i in probe], float),
        env_steps=np.array([kept[i]["used_env_steps"] for i in probe], float),
        asked=np.array([kept[i]["batch_size"] for i in probe]),
        n_groups=min((kept[i]["probe_groups"] for i in probe), default=None),
    )
