"""Prediction beside knee, from directories alone: a sweep that was run, one of its cells, and a committed sweep."""

import json
from pathlib import Path

import pytest
from tiny import CARTPOLE, config

from rl_gns.cli import main
from rl_gns.records import to_json
from rl_gns.report.summary import words
from rl_gns.study.fit import fit
from rl_gns.study.grid import Grid
from rl_gns.study.held import goals_of_a_run, pooled, predict_sweep
from rl_gns.study.sweep import sweep

COMMITTED = Path(__file__).resolve().parent.parent / "docs/results/2026-11-23-cartpole-sweep"
SETTINGS = {
    "goals": [40.0],
    "stop_at_goal": True,
    "evaluation_episodes": 4,
    "total_env_steps": 15_000,
    "batch": {"size": 64, "minibatches": 2, "epochs": 1, "segment_steps": 8},
}


class Deaf:
    def show(self, name, record):
        pass

    def say(self, name, words):
        pass


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """(directory, result) of 3 batch sizes to an easy goal, 2 minibatches a rollout."""
    path = tmp_path_factory.mktemp("swept")
    return path, sweep(config(CARTPOLE, SETTINGS), Grid((32, 64, 128), (5e-3,), "sqrt"), path, Deaf(), cells_at_once=1)


def test_sweep_fit_predict_and_report_say_the_same(swept, capsys):
    path, result = swept
    (easy,) = result.fronts
    assert easy.predicted and easy.held and easy.predicted.minibatches == 2
    (front,) = fit(path)
    assert front["predicted"] == easy.predicted and front["held"].agree == easy.held.agree
    assert front["held"].low == pytest.approx(easy.held.low, rel=1e-3)
    assert front["b_crit_rollout"].low == 2 * front["low"]
    assert main(["predict", str(path), "--json"]) == 0
    (goal,) = json.loads(capsys.readouterr().out)
    assert goal["predicted"] == to_json(easy.predicted) and goal["held"] == to_json(easy.held)
    assert goal["swept"] == to_json(easy.front)
    assert main(["predict", "--run-dir", str(path)]) == 0
    said = capsys.readouterr().out
    assert "predicted over swept: " in said and "a rollout" in said and "runs at B = 128 alone (1)" in said
    assert main(["fit", str(path)]) == 0
    assert "predicted / swept" in " ".join(capsys.readouterr().out.split()) and "Predicted over swept" in "\n".join(
        words(path)
    )


def test_a_run_inside_a_sweep_stands_beside_its_knee(swept, capsys):
    path, result = swept
    cell = next(c for c in json.loads((path / "sweep.json").read_text())["cells"] if c["prediction"])
    run = path / cell["name"]
    (goal,) = goals_of_a_run(run)
    assert goal.goal_return == 40 and goal.predicted.s_min.value == pytest.approx(cell["prediction"]["s_min"])
    assert goal.swept == to_json(result.fronts[0].front) and goal.held is not None
    assert main(["predict", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["goals"][0]["goal_return"] == 40 and found["b_crit"] and found["n_probes"] > 5
    assert main(["predict", str(run)]) == 0
    assert "predicted by this run up to there" in capsys.readouterr().out


def test_a_run_outside_any_sweep_has_no_goals(tmp_path):
    assert goals_of_a_run(tmp_path) == []


@pytest.mark.parametrize("flag", [["--part", "rest"], ["--until-env-steps", "100"]])
def test_what_a_sweep_does_not_hold_is_refused(swept, capsys, flag):
    assert main(["predict", str(swept[0]), *flag]) == 2
    assert f"{flag[0]}: read for a run" in capsys.readouterr().err


def test_a_sweep_of_before_is_read_too():
    """The committed sweep's cells kept no interval of their own. Per batch size as summed by hand."""
    predictions = pooled(COMMITTED)
    assert set(predictions) == {(100.0, 1, ""), (200.0, 1, "")}
    cells = json.loads((COMMITTED / "sweep.json").read_text())["cells"]
    these = [c["prediction"] for c in cells if c["chosen"] and c["reached"] and c["goal_return"] == 200]
    found = predictions[200.0, 1, ""]
    assert found.b_crit == pytest.approx(sum(p["e_min"] for p in these) / sum(p["s_min"] for p in these))
    assert (found.unit, found.n_units, found.n_runs) == ("batch sizes", 8, 40)
    hundred, two_hundred = predict_sweep(COMMITTED)
    assert hundred.swept is None and hundred.held is None and hundred.predicted.low > 1000
    assert two_hundred.held.agree is False and two_hundred.held.low > 10 and two_hundred.held.high is None


def test_a_csv_file_has_no_prediction(tmp_path):
    file = tmp_path / "points.csv"
    file.write_text((COMMITTED / "points.csv").read_text())
    first = fit(file)[0]
    assert first["predicted"] is None and first["held"] is None and first["b_crit_rollout"] is None
