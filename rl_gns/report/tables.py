"""The README's table of logged fields, made from the records themselves: `python -m rl_gns.report.tables`."""

from __future__ import annotations

import dataclasses

from rl_gns.measurement import Initialisations, Measurement, Pooled
from rl_gns.measurement_all import AllMeasurement, LineSearch, NoiseSplit, Share
from rl_gns.records import Decision, Fault, NoiseScale, UpdateRecord
from rl_gns.result import GoalCrossing, RunResult

FILES = {
    "metrics.jsonl: one line a rollout": UpdateRecord,
    "A decision of the controller": Decision,
    "A noise scale, wherever one stands": NoiseScale,
    "A fault, wherever one stands": Fault,
    "result.json: a finished run": RunResult,
    "A goal in result.json": GoalCrossing,
    "measure.json: a frozen policy": Measurement,
    "Initialisations of a fresh policy": Initialisations,
    "What they say of one part together": Pooled,
    "The key `all` of `measure --all --json`": AllMeasurement,
    "Its line search": LineSearch,
    "Its split of the noise": NoiseSplit,
    "One share of it": Share,
}


def metrics_tables() -> str:
    """Markdown: for every file the name, unit and meaning of each field."""
    return "\n\n".join(f"**{title}**\n\n{_table(record)}" for title, record in FILES.items())


def _table(record: type) -> str:
    rows = [f"| `{f.name}` | {f.metadata['unit']} | {f.metadata['meaning']} |" for f in dataclasses.fields(record)]
    return "\n".join(["| field | unit | meaning |", "|---|---|---|", *rows])


if __name__ == "__main__":
    print(metrics_tables())
