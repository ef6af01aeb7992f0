"""A sweep in one process: real CartPole cells, content addresses, what is reused, what fails, and what is written."""

import csv
import dataclasses
import json
import shutil

import pytest
import tomli_w
from tiny import CARTPOLE, config, replaced

from rl_gns.cli import main
from rl_gns.config import ConfigError
from rl_gns.config_file import find
from rl_gns.lock import take_lock
from rl_gns.report.page import write
from rl_gns.report.summary import words
from rl_gns.rundir import RunDir
from rl_gns.study.fronts import COLUMNS, Cell, goal_front, write_points
from rl_gns.study.grid import Grid, cell_configs, load_grid
from rl_gns.study.sweep import ERROR, SWEEP_LOCK, sweep

QUICK = {"batch": {"size": 64, "minibatches": 1, "epochs": 1, "segment_steps": 8}}


class Heard:
    """What a sweep told of its cells."""

    def __init__(self):
        self.trained, self.said = set(), {}

    def show(self, name, record):
        self.trained.add(name)

    def say(self, name, words):
        self.said[name] = words


@pytest.fixture(scope="module")
def settings():
    return replaced(config(CARTPOLE, QUICK), goals=(15.0, 10_000.0), total_env_steps=3000, evaluation_episodes=4)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, settings):
    """A sweep of 3 batch sizes and 2 seeds, what was heard, and what it gave."""
    path, heard = tmp_path_factory.mktemp("sweep"), Heard()
    result = sweep(settings, Grid((64, 128, 256), (1e-3,), "sqrt", (0, 1)), path, heard, cells_at_once=1)
    return path, heard, result


def test_cells_run_once_and_the_directory_tells_all(finished, settings):
    path, heard, result = finished
    assert len(heard.trained) == 6 and result.failed == {}
    easy, never = result.fronts
    assert easy.goal_return == 15 and easy.reached >= 4 and easy.front is not None
    assert never.reached == 0 and never.front is None and never.predicted is None, "censored, not invented"
    again = Heard()
    assert sweep(settings, Grid((64, 128, 256), (1e-3,), "sqrt", (0, 1)), path, again, cells_at_once=1) == result
    assert again.trained == set() and again.said == {}
    for cell in json.loads((path / "sweep.json").read_text())["cells"]:
        assert cell["judged_on"] == "evaluation" and (path / cell["name"] / "result.json").exists()
        if cell["reached"]:  # E = S B / epochs, but for masked rows
            assert 0.8 < cell["env_steps"] / (cell["optimizer_steps"] * cell["batch_size"]) <= 1
        else:
            assert cell["env_steps"] == RunDir(path / cell["name"]).read_result()["env_steps"], "its own cap"
    said = "\n".join(words(path))
    assert "0 of 6 runs got there" in said and "No front: " in said
    assert (write([path])[0].parent / "front.png").stat().st_size > 10_000


def test_points_are_the_columns_that_a_fit_takes(finished):
    path = finished[0]
    lines = list(csv.DictReader((path / "points.csv").open()))
    assert len(lines) == 12 and tuple(lines[0]) == COLUMNS
    cells = {
        (c["goal_return"], c["seed"], c["batch_size"]): c
        for c in json.loads((path / "sweep.json").read_text())["cells"]
    }
    for line in lines:
        nominal = min((64, 128, 256), key=lambda b, line=line: abs(b - float(line["batch_env_steps"])))
        cell = cells[float(line["goal_return"]), int(line["seed"]), nominal]
        assert 0.9 * nominal < float(line["batch_env_steps"]) <= nominal
        assert float(line["optimizer_steps"]) == pytest.approx(cell["optimizer_steps"])
        assert bool(int(line["reached"])) == cell["reached"] and float(line["learning_rate"]) == cell["learning_rate"]
    assert len({line["batch_env_steps"] for line in lines}) == 3, "one value a batch size: they are grouped by it"


def test_a_wider_grid_runs_only_what_is_new_here_or_in_another_directory(finished, settings, tmp_path):
    path, heard, _ = finished
    wider = Grid((64, 128, 256), (1e-3, 2e-3), "sqrt", (0,))
    new = Heard()
    result = sweep(settings, wider, tmp_path, new, cells_at_once=1, reuse=[tmp_path / "..", path])
    assert len(new.trained) == 3 and not new.trained & heard.trained
    assert {name for name, said in new.said.items() if said == "reused"} == {n for n in heard.trained if "-s0-" in n}
    assert result.fronts[0].cells == 6
    name = next(iter(new.said))
    assert (tmp_path / name / "metrics.jsonl").read_bytes() == (path / name / "metrics.jsonl").read_bytes()


def test_new_goals_are_read_off_old_records_without_training(finished, settings, tmp_path):
    shutil.copytree(finished[0], tmp_path / "copy")
    heard, other = Heard(), replaced(settings, goals=(12.0,))
    result = sweep(other, Grid((64,), (1e-3,), "sqrt", (0, 1)), tmp_path / "copy", heard, cells_at_once=1)
    assert heard.trained == set() and result.fronts[0].goal_return == 12 and result.fronts[0].cells == 2


def test_an_address_names_all_that_changes_numbers_and_nothing_else(settings):
    grid = Grid((64, 128), (1e-3, 3e-3), "sqrt", (0, 1), 20)
    cells = cell_configs(settings, grid)
    assert len(cells) == 8 and list(cells) == list(cell_configs(replaced(settings, actors=3, goals=(3.0,)), grid))
    assert all(c.total_env_steps == 20 * c.batch.size and c.learner.threads == 1 for c in cells.values())
    assert [c.seed for c in cells.values()] == [0] * 4 + [1] * 4, "a whole front of one seed before the next"
    assert {(c.batch.size, c.learner.learning_rate) for c in cells.values()} == {
        (64, 1e-3), (64, 3e-3), (128, 1.41e-3), (128, 4.24e-3),
    }  # fmt: skip
    clipped = replaced(settings, learner=replaced(settings.learner, clip_range=0.3))
    assert not set(cells) & set(cell_configs(clipped, grid))
    assert set(cells) < set(cell_configs(settings, dataclasses.replace(grid, seeds=(0, 1, 2), max_optimizer_steps=0)))


def test_a_cell_that_diverges_is_named_with_its_traceback_and_sinks_nothing(tmp_path, capsys):
    """A learning rate of 1e20: the weights overflow, and NonFiniteGradient ends the cell."""
    table = {**CARTPOLE, "goals": [15.0], "evaluation_episodes": 4, "total_env_steps": 1000}
    table |= {"batch": {**CARTPOLE["batch"], **QUICK["batch"]}}
    table |= {"learner": {**CARTPOLE["learner"], "max_skipped_steps": 3}}
    file = tmp_path / "grid.toml"
    file.write_text(tomli_w.dumps(table | {"sweep": {"batch_sizes": [64], "learning_rates": [1e20, 1e-3]}}))
    command = ["sweep", "--config", str(file), "--run-dir", str(tmp_path / "sweep"), "--cells-at-once", "1"]
    assert main([*command, "--json"]) == 1
    said = capsys.readouterr()
    result = json.loads(said.out)
    ((name, reason),) = result["failed"].items()
    assert name.startswith("B64-lr1e+20-s0-") and "3 optimizer steps in a row" in reason
    assert f"{name}: FAILED" in said.err and "Traceback (most recent call last)" in said.err
    kept = (tmp_path / "sweep" / name / ERROR).read_text()
    assert kept.startswith("Traceback") and "NonFiniteGradient" in kept.strip().splitlines()[-1]
    assert (tmp_path / "sweep" / name / "not_finite.safetensors").exists()
    assert result["fronts"][0]["cells"] == 1, "the other cell went on"
    assert main(command) == 1
    assert f"FAILED: {name}" in capsys.readouterr().out


def test_a_second_writer_is_turned_away(settings, tmp_path):
    with take_lock(tmp_path / SWEEP_LOCK, tmp_path), pytest.raises(ConfigError, match="in use by another process"):
        sweep(settings, Grid((64,), (1e-3,)), tmp_path, Heard(), cells_at_once=1)
    assert [p.name for p in tmp_path.iterdir()] == [SWEEP_LOCK]


def test_a_cells_prediction_is_its_own_policys_up_to_the_goal(tmp_path, settings):
    """By hand from metrics.jsonl: ds = B signal / (B signal + trace) of a step, means over the probes within half a
    window, by the jackknife over them; S_min = sum ds, E_min = sum B (1 - ds)."""

    def share(near, batch):
        signal, trace = (sum(p[1] * p[i] for p in near) for i in (2, 3))
        return batch * signal / (batch * signal + trace)

    further = replaced(settings, goals=(60.0,), total_env_steps=30_000, stop_at_goal=True)
    further = replaced(further, noise=replaced(further.noise, window_env_steps=2000))
    sweep(further, Grid((128,), (3e-3,)), tmp_path, Heard(), cells_at_once=1)
    cell = json.loads((tmp_path / "sweep.json").read_text())["cells"][0]
    assert cell["reached"] and cell["optimizer_steps"] > 5
    lines = [r for r in RunDir(tmp_path / cell["name"]).records() if r["optimizer_steps"] <= cell["optimizer_steps"]]
    left_out, probes = 0, []
    for r in lines:
        if r["probe_signal_sq"] is not None and r["probes_left_out"] == left_out:
            pair = r["probe_signal_sq"]["policy"], r["probe_noise_trace"]["policy"]
            probes.append((r["env_steps"], r["used_env_steps"], *pair))
        left_out = r["probes_left_out"]
    s_min = e_min = before = 0.0
    for r in lines:
        steps, before = r["optimizer_steps"] - before, r["optimizer_steps"]
        batch, near = r["batch_env_steps"], [p for p in probes if abs(p[0] - r["env_steps"]) <= 1000]
        if m := len(near):
            others = [share(near[:j] + near[j + 1 :], batch) for j in range(m)] if m > 1 else [0.0]
            ds = m * share(near, batch) - (m - 1) * sum(others) / m
            s_min, e_min = s_min + steps * ds, e_min + steps * batch * (1 - ds)
    assert e_min > 0 and cell["prediction"]["s_min"] == pytest.approx(s_min)
    assert cell["prediction"]["e_min"] == pytest.approx(e_min) and cell["prediction"]["minibatches"] == 1


def cell(size, seed, steps, **changes):
    known = {"reached": True, "collapsed": False, "chosen": True, **changes}
    return Cell(f"B{size}-s{seed}", 9.0, "evaluation", size, 1e-3, seed, **_at(size, steps), prediction=None, **known)


def _at(size, steps):
    return {"optimizer_steps": float(steps), "env_steps": float(size * steps), "batch_env_steps": float(size)}


def test_collapsed_runs_are_counted_and_no_point(tmp_path, settings):
    cells = [cell(64, 0, 300), cell(128, 0, 200), cell(256, 0, 150), cell(512, 0, 125)]
    lost, short = cell(512, 1, 900, reached=False, collapsed=True), cell(64, 1, 800, reached=False)
    front = goal_front([*cells, lost, short], settings)
    assert (front.cells, front.reached, front.collapsed) == (6, 4, 1)
    assert goal_front(cells, settings).front.b_crit == pytest.approx(128)
    assert (front.front.n, front.front.n_reached) == (5, 4) and front.front.b_crit > 128, "censored, not left out"
    write_points(tmp_path / "points.csv", [*cells, lost, short], {"": settings})
    lines = list(csv.DictReader((tmp_path / "points.csv").open()))
    assert [line["reached"] for line in lines] == ["1"] * 4 + ["0"], "the censored one is there, the collapsed is not"


@pytest.mark.parametrize(
    ("changes", "grid", "words"),
    [
        ({"goals": ()}, Grid((64,), (1e-3,)), "at least one goal"),
        ({}, Grid((), (1e-3,)), "sweep.batch_sizes"),
        ({}, Grid((64,), ()), "sweep.learning_rates"),
        ({}, Grid((64,), (1e-3,), seeds=(1, 1)), "each once"),
        ({}, Grid((64,), (1e-3,), max_optimizer_steps=-1), "sweep.max_optimizer_steps: -1 is too small"),
        ({}, Grid((50,), (1e-3,)), "the nearest that fits is 64"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(settings, changes, grid, words):
    with pytest.raises(ConfigError, match=words):
        cell_configs(replaced(settings, **changes), grid)


def test_a_rate_or_a_batch_that_moves_makes_no_front(settings):
    for part, field, value in (("learner", "schedule", "linear"), ("control", "policy", "follow")):
        moved = replaced(settings, **{part: replaced(getattr(settings, part), **{field: value})})
        with pytest.raises(ConfigError, match=f"{part}.{field}: '{value}'"):
            cell_configs(moved, Grid((64,), (1e-3,)))


def test_the_shipped_grids_are_what_they_say():
    cartpole, pong = (load_grid(find(f"sweeps/{name}")) for name in ("cartpole", "pong_small"))
    assert len(cartpole[1].batch_sizes) >= 6 and len(cartpole[1].learning_rates) >= 3 and len(cartpole[1].seeds) == 5
    assert cartpole[0].evaluation_episodes >= 20 and pong[0].goals == (-19.0, -15.0)
    assert len(cell_configs(*pong)) == 8 and {c.batch.size for c in cell_configs(*pong).values()} == {
        128,
        256,
        512,
        1024,
    }
    for cells in (cell_configs(*cartpole), cell_configs(*pong)):
        assert len({(c.batch.epochs, c.batch.minibatches) for c in cells.values()}) == 1
        assert {(c.learner.schedule, c.learner.threads) for c in cells.values()} == {("constant", 1)}
