"""Directories that hold nothing whole: one clear line that names them, exit code 2, nothing written."""

import shutil

import pytest
from test_architecture import ROOT

from rl_gns.cli import main

RESULTS = ROOT / "docs" / "results"
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
    return path


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
    ],
)
def test_a_bad_directory_is_one_line_that_names_it(tmp_path, capsys, kind, complaint):
    bad, out = spoilt(tmp_path, kind), tmp_path / "out"
    assert main(["report", str(BREAKOUT), str(bad), "--out", str(out)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert str(bad) in said and complaint in said and not out.exists()
