"""Directories that hold nothing whole: one clear line that names them, exit code 2, nothing written."""

import json
import shutil

import pytest
from test_architecture import ROOT

from rl_gns.cli import main

RESULTS = ROOT / "docs" / "results"
COMPARE = RESULTS / "2026-11-23-compare"
BREAKOUT, MEASURED = RESULTS / "2026-11-23-breakout-front", RESULTS / "2026-11-23-noise-scales" / "Pong-seed1"


def spoilt(tmp_path, kind):
    path = tmp_path / kind
    if kind == "a-file":
        path.touch()
    elif kind != "missing":
        path.mkdir()
    if kind in ("one-bad-line", "no-records"):
        shutil.copy(MEASURED / "config.toml", path)
        (path / "metrics.jsonl").write_text("{}\n" if kind == "one-bad-line" else "")
    if kind == "half-written":
        shutil.copy(MEASURED / "config.toml", path)
    if kind == "unfinished-sweep":
        (path / "cell").mkdir()
        shutil.copy(MEASURED / "config.toml", path / "cell")
    if kind == "cut":
        (path / "sweep.json").write_text((BREAKOUT / "sweep.json").read_text()[:5000])
    if kind == "other":
        (path / "sweep.json").write_text("{}")
    if kind.startswith("compare"):
        (path / "compare.json").write_text(spoilt_comparison(kind))
    return path


def spoilt_comparison(kind):
    text = (COMPARE / "compare.json").read_text()
    saved = json.loads(text)
    if kind == "compare-no-interval":
        del saved["results"][0]["noise"]["policy"]["within_low"]
    if kind == "compare-no-cells":
        saved["cells"] = None
    if kind == "compare-a-word":
        saved["results"][3]["noise"]["policy"]["low"] = "low"
    whole = {"compare-other": "{}", "compare-a-list": "[]", "compare-cut": text[:5000], "compare-empty": ""}
    return whole.get(kind, json.dumps(saved))


@pytest.mark.parametrize(
    "kind, complaint",
    [
        ("one-bad-line", "damaged"),
        ("no-records", "a run that has recorded nothing yet"),
        ("a-file", "a file; a directory of runs is wanted"),
        ("missing", "no such directory; the nearest is "),
        ("empty", "no run here (config.toml is missing)"),
        ("half-written", "a run that has recorded nothing yet"),
        ("unfinished-sweep", "no sweep.json here, but 1 runs below: let the sweep finish, or name runs, as "),
        ("cut", "damaged"),
        ("other", "damaged, or of another version"),
        ("compare-other", "damaged, or of another version"),
        ("compare-a-list", "damaged, or of another version"),
        ("compare-cut", "damaged"),
        ("compare-empty", "damaged"),
        ("compare-no-interval", "damaged, or of another version"),
        ("compare-no-cells", "damaged, or of another version"),
        ("compare-a-word", "damaged, or of another version"),
    ],
)
def test_a_bad_directory_is_one_line_that_names_it(tmp_path, capsys, kind, complaint):
    bad, out = spoilt(tmp_path, kind), tmp_path / "out"
    assert main(["report", str(BREAKOUT), str(bad), "--out", str(out)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert str(bad) in said and complaint in said and not out.exists()
