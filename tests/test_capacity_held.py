"""What the capacity plan is said to predict: kept measurements and the tables of its page, remade from kept rates."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rl_gns.config_file import find, load
from rl_gns.study.capacity import Cluster, Rates, predict

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "docs" / "results" / "2026-11-24-capacity"
ROWS = [row for name in ("first", "second") for row in json.loads((KEPT / f"{name}.json").read_text())["actors"]]
NAMES = ("env_steps_per_second", "collect_seconds", "learn_seconds")


def test_kept_predictions_are_those_of_the_formulas():
    kept = json.loads((KEPT / "second.json").read_text())
    assert [row["actors"] for row in kept["actors"]] == [1, 2, 4]
    for row in kept["actors"]:
        rates = Rates(**row["rates"])
        here = Cluster(1, rates.cores, 0, 10.0, rates.memory_bytes / 2**30, row["actors"])
        found = predict(load(find("pong")), kept["batch_size"], rates, here)
        assert found.bottleneck == row["bottleneck"]
        assert [getattr(found, name) for name in NAMES] == pytest.approx([row[f"predicted_{name}"] for name in NAMES])


def test_kept_runs_are_within_what_the_page_says_of_the_predictions():
    ratios = [row["predicted_env_steps_per_second"] / row["measured_env_steps_per_second"] for row in ROWS]
    assert len(ratios) == 6 and min(ratios) > 0.94 and max(ratios) < 1.15
    page = (ROOT / "docs" / "capacity.md").read_text(encoding="utf-8")
    for actors in (1, 2, 4):
        first, second = (ratio for ratio, row in zip(ratios, ROWS, strict=True) if row["actors"] == actors)
        assert f"{first:.2f} and {second:.2f} with {actors}" in page


def test_the_pages_tables_are_those_of_the_kept_rates():
    command = [sys.executable, ROOT / "scripts" / "capacity_page.py", KEPT / "second.json"]
    tables = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    assert tables.count("| 160 x 64 |") == 2
    assert tables in (ROOT / "docs" / "capacity.md").read_text(encoding="utf-8")
