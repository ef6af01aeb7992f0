"""What the capacity plan is said to predict: kept measurements, and the page that is made from them."""

import dataclasses
import json
import shutil
import subprocess
import sys

import pytest
from capacity_rates import ROOT, page

from rl_gns.config_file import find, load
from rl_gns.digits import round3
from rl_gns.study.capacity import Cluster, Rates, predict

KEPT = ROOT / page.MADE.search(page.PAGE.read_text())[1]
FILES = {file.stem: json.loads(file.read_text()) for file in sorted(KEPT.glob("*.json"))}
ROWS = [row for file in FILES.values() for row in file["actors"]]
NAMES = ("env_steps_per_second", "collect_seconds", "learn_seconds")


def test_kept_predictions_are_those_of_the_formulas():
    kept = list(FILES.values())[-1]
    assert [row["actors"] for row in kept["actors"]] == [1, 2, 4]
    for row in kept["actors"]:
        rates = Rates(**row["rates"])
        here = Cluster(1, rates.cores, 0, 10.0, rates.memory_bytes / 2**30, row["actors"])
        found = predict(load(find("pong")), kept["batch_size"], rates, here)
        assert found.bottleneck == row["bottleneck"]
        assert [getattr(found, name) for name in NAMES] == pytest.approx([row[f"predicted_{name}"] for name in NAMES])


def test_kept_runs_are_within_what_the_readme_says_of_the_predictions():
    """The whole, and collecting by itself: more than half of the whole is learning, by the learner's own rate."""
    whole, collecting, _ = ([row[f"predicted_{name}"] / row[f"measured_{name}"] for row in ROWS] for name in NAMES)
    assert len(ROWS) == 6 and min(whole) > 1.02 and max(whole) < 1.12
    assert min(collecting) > 0.88 and max(collecting) < 0.94
    learning, collected = ([row[f"measured_{name}_seconds"] for row in ROWS] for name in ("learn", "collect"))
    shares = [100 * seconds / (seconds + rest) for seconds, rest in zip(learning, collected, strict=True)]
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"{min(shares):.0f} to {max(shares):.0f} % of each rollout was learning" in readme
    assert f"{100 * min(whole) - 100:.0f} to {100 * max(whole) - 100:.0f} % too fast" in readme
    assert f"collecting is predicted at {min(collecting):.2f} to {max(collecting):.2f} of what it took" in readme


def test_the_page_is_made_from_the_kept_measurements():
    said = page.PAGE.read_text(encoding="utf-8")
    assert page.made(KEPT) == page.MADE.search(said)[3]
    assert said.count("| 160 x 64 |") == 2, "behind the learner as measured, and behind a stated one"


def test_the_largest_cluster_is_told_by_both_lines_of_the_driver():
    """By hand: the driver's seconds an answer of the two largest crews, and what a block takes beside."""
    kept = list(FILES.values())[-1]
    rates, timed = Rates(**kept["rates"]), {row["actors"]: row["measured"] for row in kept["driver"]}
    _, last = page.lines(load(find("pong")), dataclasses.replace(rates, learner=page.STATED))[-1]
    crew = timed[2048] + (10_240 - 2048) * (timed[2048] - timed[1024]) / 1024
    alone = kept["driver"][0]["line"] - 8 * rates.handling_seconds_per_actor
    seconds = 10_240 * (crew + rates.handling_seconds - alone + rates.copying_seconds)
    assert page.steeper(last, kept) == pytest.approx(seconds) and seconds > 1.2 * last.busy["driver"]
    assert f"between 1,024 and 2,048 actors ({round3(seconds)} s)" in page.PAGE.read_text(encoding="utf-8")


def test_one_command_remakes_the_page(tmp_path):
    """In a checkout with other kept measurements, whose blocks take longer to copy."""
    for name in ("scripts/capacity_page.py", "docs/capacity.md", f"docs/{page.GAMES}/compare.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    folder = tmp_path / "docs" / "results" / "anew"
    folder.mkdir()
    kept = list(FILES.values())[-1]
    kept["actors"][0]["measured_collect_seconds"] = kept["actors"][0]["predicted_collect_seconds"] / 0.51
    rates = kept["rates"] | {"copying_seconds": 0.005}
    provenance = {"machine": {"cpu": "a CPU of ours"}}
    (folder / "only.json").write_text(json.dumps(kept | {"rates": rates, "provenance": provenance}))
    command = [sys.executable, tmp_path / "scripts" / "capacity_page.py", folder]
    subprocess.run(command, check=True, timeout=120)
    said = (tmp_path / "docs" / "capacity.md").read_text(encoding="utf-8")
    assert "<!-- made from docs/results/anew by" in said and "predicted at 0.51 to 0.90 times what it took" in said
    assert said.partition("<!-- made")[0] == page.PAGE.read_text(encoding="utf-8").partition("<!-- made")[0]
    driver = 10_240 * (rates["handling_seconds"] + 0.005 + 10_240 * rates["handling_seconds_per_actor"])
    assert said.count(f"| {round3(driver)} |") == 2 and "memory=256; a CPU of ours)" in said
    with pytest.raises(ValueError, match="files of 2 machines"):
        page.machine({"one": {"provenance": provenance}, "other": {"provenance": {"machine": {"cpu": "another"}}}})
