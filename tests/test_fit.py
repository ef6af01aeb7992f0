"""`rl-gns fit`: the paper's own points, files with mistakes in them, sweeps' directories, and what people see."""

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from rl_gns.cli import main
from rl_gns.config import ConfigError
from rl_gns.study.fit import fit, knee_words, show
from rl_gns.study.points import COLUMNS, REQUIRED, read_csv, read_points

PAPER = Path(__file__).resolve().parent.parent / "docs/results/paper/mccandlish2018_atari_fronts.csv"
HEAD = "game,goal_return,batch_env_steps,optimizer_steps"
ROWS = ["Pong,-19,128,400", "Pong,-19,256,250", "Pong,-19,512,180", "Pong,-19,1024,140", "Pong,-19,4096,120"]


def write(path, head=HEAD, rows=ROWS):
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return path


def test_the_papers_knees_are_found():
    """Within 15 % of the B_crit that the paper gives for these goals (read off its figures)."""
    done = subprocess.run(
        [sys.executable, "-m", "rl_gns", "fit", str(PAPER), "--json"], capture_output=True, text=True, check=True
    )
    found = {(f["game"], f["goal_return"]): f for f in json.loads(done.stdout)}
    papers = {
        ("Breakout", 2): 73,
        ("Breakout", 3): 120,
        ("Breakout", 10): 254,
        ("Breakout", 600): 5010,
        ("Pong", -19): 250,
        ("Pong", 19): 340,
        ("SpaceInvaders", 250): 750,
        ("SpaceInvaders", 70000): 8300,
    }
    for key, b_crit in papers.items():
        assert found[key]["b_crit"] == pytest.approx(b_crit, rel=0.15), key
        assert found[key]["low"] < b_crit < found[key]["high"]
    assert len(found) == 26
    for front in found.values():
        assert {"s_min", "e_min", "b_crit", "low", "high", "rms_log", "resolved", "reason", "aic", "epochs"} <= set(
            front
        )
        assert front["resolved"] is (front["reason"] is None)
        if front["n"] > 3:
            assert front["b_crit"] == pytest.approx(front["e_min"] / front["s_min"]) and front["rms_log"] < 0.2
    assert found["Breakout", 100]["resolved"] and not found["Breakout", 600]["resolved"]
    assert found["SpaceInvaders", 20000]["b_crit"] is None
    assert "2 runs reached" in found["SpaceInvaders", 20000]["reason"]


def test_fronts_of_different_epochs_are_never_pooled(tmp_path):
    """The same S(B) under 1 and 4 epochs: the same knee, a quarter of the env steps."""
    rows = [f"{row},{epochs}" for epochs in (1, 4) for row in ROWS]
    one, four = fit(write(tmp_path / "points.csv", HEAD + ",epochs", rows))
    assert (one["epochs"], four["epochs"]) == (1, 4) and one["n"] == four["n"] == 5
    assert one["b_crit"] == pytest.approx(four["b_crit"]) and one["e_min"] == pytest.approx(4 * four["e_min"])


def test_optional_columns_enter_the_fit(tmp_path):
    rows = [f"{row},{rate},{seed},true" for row in ROWS for rate in (1e-4, 1e-3, 1e-2) for seed in (0, 1)]
    rng = np.random.default_rng(0)
    for i, row in enumerate(rows):
        cells = row.split(",")
        away = math.log(float(cells[4]) / 1e-3) ** 2
        cells[3] = f"{float(cells[3]) * math.exp(0.05 * away + 0.05 * rng.standard_normal()):.1f}"
        rows[i] = ",".join(cells)
    rows[-1] = rows[-1].replace("true", "FALSE")
    (front,) = fit(write(tmp_path / "points.csv", HEAD + ",learning_rate,seed,reached", rows))
    assert front["n_reached"] == 29 and front["n"] == 30
    assert len(front["learning_rates"]) == 5 and front["low"] < 330 < front["high"]


@pytest.mark.parametrize(
    "head, rows, words",
    [
        ("game,goal_return,batch_env_steps", ["Pong,1,8"], "optimizer_steps: this column is missing"),
        (
            HEAD.replace("batch_env", "batch_enw"),
            ROWS,
            "'batch_enw_steps': no such column; the nearest is batch_env_steps",
        ),
        (HEAD + ",learning_rates", ROWS, "'learning_rates': no such column; the nearest is learning_rate"),
        (HEAD + ",game", ROWS, "game: this column is there twice"),
        (HEAD, [*ROWS, "Pong,-19,many,7"], "line 7: batch_env_steps: 'many' is not a number"),
        (HEAD, ["Pong,-19,128,-400"], "line 2: optimizer_steps: '-400' must lie between 1 and"),
        (HEAD, ["Pong,nan,128,400"], "line 2: goal_return: 'nan' must lie between"),
        (HEAD, ["Pong,-19,128,inf"], "optimizer_steps: 'inf' must lie between"),
        (HEAD, ["Pong,-19,128"], "line 2: 3 cells under 4 column names"),
        (HEAD, ["Pong,-19,,400"], "line 2: batch_env_steps: the cell is empty"),
        (HEAD + ",epochs", ["Pong,-19,128,400,1.5"], "epochs: '1.5' must be a whole number"),
        (HEAD + ",epochs", ["Pong,-19,128,400,0"], "epochs: '0' must lie between 1"),
        (HEAD + ",reached", ["Pong,-19,128,400,maybe"], "reached: 'maybe' must be true or false"),
        (HEAD + ",learning_rate", ["Pong,-19,128,400,0"], "learning_rate: '0' must lie between"),
        (HEAD, [], "there is no run below the column names"),
        ("", [], "the file is empty; the columns needed are game"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, capsys, head, rows, words):
    assert main(["fit", str(write(tmp_path / "points.csv", head, rows)), "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and words in err and "points.csv" in err


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["nowhere.csv"], "nowhere.csv: no such file"),
        (["a.csv", "b.csv"], "one CSV file or sweep directory is needed, got 2"),
        (["a.csv", "--jsn"], "the nearest is --json"),
        (["."], "no points.csv here"),
    ],
)
def test_a_mistake_in_the_command_is_one_line(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and words in err


CELL = st.one_of(
    st.sampled_from(
        ["Pong", "128", "256", "1e3", "-19", "true", "0", "", "nan", "inf", "1e400", "-0", "1_0", "९", '"']
    ),
    st.floats().map(str),
    st.text(max_size=6),
)
NAMES = st.lists(st.one_of(st.sampled_from([*COLUMNS]), st.text(max_size=8)), max_size=8)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.one_of(st.just([*REQUIRED]), st.just([*COLUMNS]), NAMES), rows=st.lists(st.lists(CELL, max_size=10)))
@example(names=[*REQUIRED], rows=[["Pong", "1", "8", "9" * 5000]])
@example(names=[*COLUMNS], rows=[["P", "1", "8", "9", "1", "1e400", "1", "1", "1", "1"]])
def test_any_table_is_read_or_refused_in_one_line(tmp_path, names, rows):
    path = tmp_path / "points.csv"
    with open(path, "w", encoding="utf-8", newline="", errors="replace") as file:
        csv.writer(file).writerows([names, *rows])
    read_or_refused(path)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
@example(content=b"\xff\xfe\x00")
@example(content=b"game\x00,goal_return\n")
@example(content=b'"' + b"x" * 200_000)
def test_any_bytes_are_read_or_refused_in_one_line(tmp_path, content):
    (tmp_path / "points.csv").write_bytes(content)
    read_or_refused(tmp_path / "points.csv")


def read_or_refused(path):
    try:
        runs = read_csv(path)
    except ConfigError as error:
        assert str(error).startswith(str(path)) and len(str(error)) < 600
    else:
        assert runs and all(run.batch_env_steps >= 1 and run.optimizer_steps >= 1 for run in runs)


NUMBERS = st.floats(1, 1e15)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    points=st.lists(
        st.tuples(NUMBERS, NUMBERS, st.sampled_from([1e-12, 1e-3, 1e6]), st.booleans()), min_size=1, max_size=20
    )
)
def test_any_points_are_fitted_or_said_to_be_no_front(tmp_path, points):
    rows = [f"g,1,{batch!r},{steps!r},{rate!r},{str(there).lower()}" for batch, steps, rate, there in points]
    (front,) = fit(write(tmp_path / "points.csv", HEAD + ",learning_rate,reached", rows))
    assert front["resolved"] is (front["reason"] is None)
    json.dumps(front)


def test_a_sweeps_directory_is_its_points(tmp_path):
    """Two seeds at four batch sizes: one run stopped short is censored at its last step."""
    header = "game,goal_return,batch_env_steps,optimizer_steps,env_steps,seed,learning_rate,epochs,reached"
    lines = [
        f"CartPole,200,{b},{round(100 * (1 + 300 / b) * (1.1 if seed else 1))},{1000 * b},{seed},0.001,1,"
        f"{int((b, seed) != (1024, 1))}"
        for b in (128, 256, 512, 1024)
        for seed in (0, 1)
    ]
    (tmp_path / "points.csv").write_text("\n".join([header, *lines]) + "\n")
    assert sum(not run.reached for run in read_points(tmp_path)) == 1
    (front,) = fit(tmp_path)
    assert front == fit(tmp_path / "points.csv")[0]
    assert front["n"] == 8 and front["n_reached"] == 7 and front["goal_return"] == 200


def test_what_people_see(capsys):
    show(fit(PAPER), Console(width=150))
    said = capsys.readouterr().out
    assert "449 [397 to 507]" in said and "about 74" in said
    assert "Breakout, goal 600: not resolved: no batch size at 4 times the knee" in said


def test_a_one_sided_knee_is_at_least_or_at_most():
    base = {"resolved": False, "b_crit": 300.0}
    assert knee_words(base | {"low": 100.0, "high": None}) == "at least 100"
    assert knee_words(base | {"low": 0.0, "high": 900.0}) == "at most 900"
    assert knee_words(base | {"low": 0.0, "high": None}) == "unknown"
    assert knee_words(base | {"low": 100.0, "high": 900.0}) == "about 300 [100 to 900]"
    assert knee_words(base | {"low": 100.0, "high": 900.0, "resolved": True}) == "300 [100 to 900]"
