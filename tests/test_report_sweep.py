"""The page of sweeps as they end: of cells whose directories are gone, and of cells that all failed."""

import json
import shutil

import pytest
from test_architecture import ROOT
from tiny import CARTPOLE, config, replaced

from rl_gns.cli import main
from rl_gns.report.found import look
from rl_gns.report.page import write
from rl_gns.study.grid import Grid
from rl_gns.study.sweep import sweep

QUICK = {"batch": {"size": 64, "minibatches": 1, "epochs": 1, "segment_steps": 8}}


class Silent:
    def show(self, name, record):
        pass

    def say(self, name, words):
        pass


@pytest.fixture
def settings():
    return replaced(config(CARTPOLE, QUICK), goals=(15.0,), total_env_steps=1500, evaluation_episodes=4)


def test_command_and_commit_outlive_the_cells(settings, tmp_path, monkeypatch):
    """sweep.json keeps those of its own cells: what else lies in the directory is none of them."""
    monkeypatch.setattr("sys.argv", ["rl-gns", "sweep", "--config", "mine.toml"])
    sweep(settings, Grid((64, 128), (1e-3,), "sqrt", (0,)), tmp_path, Silent(), cells_at_once=1)
    before = look(tmp_path).origin()
    cells = sorted({cell["name"] for cell in look(tmp_path).cells()})
    sittings = [s for name in cells for s in json.loads((tmp_path / name / "provenance.json").read_text())]
    for name in cells:
        shutil.rmtree(tmp_path / name)
    assert look(tmp_path).origin() == before and before.commands == ("rl-gns sweep --config mine.toml",)
    assert {commit[:7] for commit in before.commits} == {s["commit"][:7] for s in sittings if s["commit"]}
    assert before.commits or not (ROOT / ".git").exists()
    page, _ = write([tmp_path])
    words = (page.parent / "front.md").read_text()
    assert "not recorded" not in words or not before.commits
    saved = json.loads((tmp_path / "sweep.json").read_text())
    (tmp_path / "sweep.json").write_text(json.dumps(saved | {"provenance": []}))
    assert look(tmp_path).origin().commits == ()


def test_a_sweep_whose_every_cell_failed_says_so(settings, tmp_path, capsys):
    """A learning rate of 1e20: the weights overflow."""
    settings = replaced(settings, learner=replaced(settings.learner, max_skipped_steps=3))
    failed = sweep(settings, Grid((64, 128), (1e20,), "sqrt", (0,)), tmp_path, Silent(), cells_at_once=1).failed
    assert len(failed) == 2 and look(tmp_path).fronts == []
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "not answered: no run of the sweep finished, 2 failed: B128-" in said
    text = (tmp_path / "out" / "index.html").read_text()
    assert "no front: no run finished" in text and "2 failed: " in text and "not answered" in text
    assert not list((tmp_path / "out").glob("*.png"))
