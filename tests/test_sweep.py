"""The thin sweep: real CartPole cells, resumed by running it again, and a front from their directories."""

import dataclasses
import json

import pytest
from tiny import CARTPOLE, config

from rl_gns.config import ConfigError
from rl_gns.config_file import find
from rl_gns.report.figures import figure
from rl_gns.report.summary import words
from rl_gns.rundir import RunDir
from rl_gns.study.sweep import Grid, cell_configs, load_grid, sweep


@pytest.fixture(scope="module")
def settings():
    return dataclasses.replace(
        config(CARTPOLE, {"batch": {"minibatches": 1, "epochs": 1, "segment_steps": 8}}),
        goals=(15.0, 10_000.0),
        total_env_steps=3000,
    )


def test_cells_run_once_and_the_directory_tells_all(tmp_path, settings):
    grid = Grid(batch_sizes=(64, 128, 256), learning_rates=(1e-3, 1e-3, 1e-3), seeds=(0, 1))
    seen = []
    fronts = sweep(settings, grid, tmp_path, lambda name, record: seen.append(name))
    assert len(set(seen)) == 6
    easy, never = fronts
    assert easy.goal_return == 15 and easy.reached >= 4 and easy.front is not None
    assert never.reached == 0 and never.front is None and never.predicted is None, "censored, not invented"
    seen.clear()
    again = sweep(settings, grid, tmp_path, lambda name, record: seen.append(name))
    assert seen == [] and again == fronts
    saved = json.loads((tmp_path / "sweep.json").read_text())
    for cell in saved["cells"]:
        assert cell["reached"] == (cell["optimizer_steps"] is not None)
        if cell["reached"]:  # E = S B / epochs, but for masked rows
            ratio = cell["env_steps"] / (cell["optimizer_steps"] * cell["batch_size"])
            assert 0.8 < ratio <= 1
    said = "\n".join(words(tmp_path))
    assert "0 of 6 runs got there" in said and "Too few runs got there" in said
    assert figure(tmp_path).stat().st_size > 10_000


def test_a_cells_prediction_is_its_own_policys_up_to_the_goal(tmp_path, settings):
    """By hand from metrics.jsonl: B_crit = sum w trace / sum w signal, w = steps B / (B signal + trace)."""
    further = dataclasses.replace(settings, goals=(60.0,), total_env_steps=30_000, stop_at_goal=True)
    sweep(further, Grid((128,), (3e-3,), (0,)), tmp_path)
    cell = json.loads((tmp_path / "sweep.json").read_text())["cells"][0]
    assert cell["reached"] and cell["optimizer_steps"] > 5
    signal_sum = trace_sum = before = 0.0
    for record in RunDir(tmp_path / "B128-lr0.003-s0").records():
        steps, before = record["optimizer_steps"] - before, record["optimizer_steps"]
        if before > cell["optimizer_steps"] or record["noise"] is None:
            continue
        policy, batch = record["noise"]["policy"], record["batch_env_steps"]
        weight = steps * batch / (batch * policy["signal_sq"] + policy["noise_trace"])
        signal_sum, trace_sum = signal_sum + weight * policy["signal_sq"], trace_sum + weight * policy["noise_trace"]
    assert trace_sum > 0 and cell["prediction"]["s_min"] == pytest.approx(signal_sum)
    assert cell["prediction"]["e_min"] == pytest.approx(trace_sum)


def test_a_grid_needs_a_rate_for_each_size_and_a_goal(tmp_path, settings):
    file = tmp_path / "grid.toml"
    file.write_text("[sweep]\nbatch_sizes = [64, 128]\nlearning_rates = [1e-3]\n")
    with pytest.raises(ConfigError, match="one a batch size"):
        load_grid(file)
    with pytest.raises(ConfigError, match="at least one goal"):
        cell_configs(dataclasses.replace(settings, goals=()), Grid((64,), (1e-3,)))


def test_the_shipped_grid_has_a_dozen_cells():
    cells = cell_configs(*load_grid(find("sweeps/cartpole_first")))
    assert len(cells) == 12
    assert {(c.batch.epochs, c.batch.minibatches) for c in cells.values()} == {(1, 1)}
    assert {c.learner.schedule for c in cells.values()} == {"constant"}
