"""Run directories that a disk or a hand has damaged: what is left is read or refused in one line, and never misread."""

import copy
import json
import math
import re
import shutil

import pytest
from damage import damaged_json, damaged_lines, fuzz, wrecks, writes_only_below
from hypothesis import strategies as st
from test_architecture import ROOT
from test_fuzz import refused_in_one_line
from tiny import CARTPOLE, config

from rl_gns.config import ConfigError
from rl_gns.report.page import write
from rl_gns.report.summary import words
from rl_gns.rundir import RunDir
from rl_gns.study.fit import fit
from rl_gns.study.held import predictions
from rl_gns.study.status import look
from rl_gns.study.status_view import facts, table
from rl_gns.study.status_view import words as status_words
from rl_gns.study.train import Keeper, train

SOME = pytest.param(100, marks=pytest.mark.sampled)
MANY = pytest.param(1100, marks=[pytest.mark.slow, pytest.mark.patient])
CASES = pytest.mark.parametrize("cases", [SOME, MANY], ids=["some", "many"])
GOALS = {"goals": [5.0, 500.0], "goals_judged_on": "training", "checkpoint": {"every_env_steps": 500}}
SWEEP = ROOT / "docs" / "results" / "2026-11-23-cartpole-confounds"


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A finished run with its last two checkpoints; each test damages it, looks, and mends it."""
    path = tmp_path_factory.mktemp("clean") / "run"
    train(config(CARTPOLE, GOALS), path)
    return path


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A real sweep's sweep.json, one front of it, and few enough points to be fitted in no time."""
    path = tmp_path_factory.mktemp("sweep")
    saved = json.loads((SWEEP / "sweep.json").read_text(encoding="utf-8"))
    variant = saved["fronts"][0]["variant"]
    saved["fronts"] = saved["fronts"][:1]
    saved["cells"] = [cell for cell in saved["cells"] if cell["variant"] == variant][:8]
    saved["variants"] = {name: saved["variants"][name] for name in list(saved["variants"])[:2]}
    (path / "sweep.json").write_text(json.dumps(saved), encoding="utf-8")
    lines = (SWEEP / "points.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (path / "points.csv").write_text("".join(lines[:3]), encoding="utf-8")
    return path


def with_instead(file, content, check):
    """`check` while the file holds `content`."""
    before = file.read_bytes()
    file.write_bytes(content)
    try:
        check()
    finally:
        file.write_bytes(before)


def read_a_run(path):
    """All that only reads a run's directory; it writes nothing."""
    with writes_only_below(None):
        status = look(path, path.name)
        assert status.state in ("finished", "stopped", "damaged") and "\n" not in status.reason
        assert json.dumps(facts(status)) and status_words(status) and table([status, status], [path])
        said = refused_in_one_line(words, path)
        assert said is None or all(isinstance(line, str) for line in said)
        refused_in_one_line(predictions, path, "policy", 0)


def kinds(name, content):
    return damaged_lines(content) if name == "metrics.jsonl" else damaged_json(content)


@CASES
@pytest.mark.parametrize("name", ["metrics.jsonl", "result.json"])
def test_a_damaged_file_is_read_or_refused(cases, name, clean):
    content = (clean / name).read_bytes()
    fuzz(cases, kinds(name, content), lambda bad: with_instead(clean / name, bad, lambda: read_a_run(clean)))


def test_a_damaged_config_is_read_or_refused(clean):
    content = (clean / "config.toml").read_bytes()
    fuzz(60, wrecks(content), lambda bad: with_instead(clean / "config.toml", bad, lambda: read_a_run(clean)))


def test_no_changed_digit_moves_the_counters(clean):
    """env_steps is held against used_env_steps, update against its place: no digit of either changes unseen."""
    file, run = clean / "metrics.jsonl", RunDir(clean)
    content = file.read_bytes()
    truth = [(record["update"], record["env_steps"]) for record in run.records()]
    counters = re.finditer(rb'"update": (\d+), "env_steps": (\d+)', content)
    places = [at for found in counters for group in (1, 2) for at in range(*found.span(group))]
    assert len(places) > 3 * len(truth)

    def check():
        records = refused_in_one_line(lambda: list(run.records()))
        assert records is None or [(record["update"], record["env_steps"]) for record in records] == truth

    for at in places:
        for digit in b"0123456789":
            with_instead(file, content[:at] + bytes([digit]) + content[at + 1 :], check)


@CASES
def test_resuming_a_damaged_run_goes_on_from_the_truth_or_is_refused(cases, clean, tmp_path):
    truth = {record["update"]: record["env_steps"] for record in RunDir(clean).records()}
    files = ("metrics.jsonl", "result.json", "provenance.json", "config.toml")
    contents = {name: (clean / name).read_bytes() for name in files}

    def bad(name):
        found = wrecks(contents[name]) if name == "config.toml" else kinds(name, contents[name])
        return found.map(lambda content: (name, content))

    def check(case):
        path = tmp_path / "run"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(clean, path)
        (path / case[0]).write_bytes(case[1])
        keeper = Keeper(config(CARTPOLE, {**GOALS, "total_env_steps": 3000}), path)
        with writes_only_below(path):
            goes_on_from_the_truth(keeper, truth)
        keeper.close()

    fuzz(max(cases // 3, 30), st.sampled_from(files).flatmap(bad), check)


def goes_on_from_the_truth(keeper, truth):
    def begin():
        keeper.open()
        keeper.over()
        state, _ = keeper.resume()
        keeper.run.note_sitting({"again": True})
        return state

    state = refused_in_one_line(begin)
    if state is not None:
        counters = state["counters"]
        assert truth[counters["update"] - 1] == counters["env_steps"]
        assert len(list(keeper.run.records())) == counters["update"]


@CASES
def test_a_damaged_sweep_is_read_or_refused(cases, sweep):
    def check():
        with writes_only_below(None):
            refused_in_one_line(words, sweep)
            refused_in_one_line(predictions, sweep, "policy", 0)
            refused_in_one_line(fit, sweep)

    content = (sweep / "sweep.json").read_bytes()
    fuzz(cases, damaged_json(content), lambda bad: with_instead(sweep / "sweep.json", bad, check))


def test_figures_of_damaged_runs_are_drawn_or_refused(clean, sweep):
    for path, name in ((clean, "metrics.jsonl"), (sweep, "sweep.json")):

        def check(bad, path=path, name=name):
            with writes_only_below(path):
                with_instead(path / name, bad, lambda: refused_in_one_line(write, [path]))

        fuzz(6, kinds(name, (path / name).read_bytes()), check)


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"env_steps": "12"}, "env_steps: 12 is not what a run writes there"),
        ({"env_steps": True}, "env_steps: True is not"),
        ({"env_steps": 10**30}, "env_steps: 1000"),
        ({"env_steps": 257}, "env_steps is not that of the line before and used_env_steps"),
        ({"update": 7}, "update 7 stands out of turn"),
        ({"seconds": math.inf}, "Infinity is not finite"),
        ({"noise": {"policy": {"b_simple": "12"}}}, "noise: "),
        ({"noises": None}, "noises: no such field"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_record_that_no_run_writes_is_named(clean, change, complaint):
    records = copy.deepcopy(list(RunDir(clean).records()))
    records[2] |= change
    bad = "".join(json.dumps(record) + "\n" for record in records).encode()

    def check():
        with pytest.raises(ConfigError, match=f"metrics.jsonl: damaged \\(line 3: {complaint}"):
            list(RunDir(clean).records())

    with_instead(clean / "metrics.jsonl", bad, check)


def test_a_refused_resume_leaves_the_result(clean, tmp_path):
    path = shutil.copytree(clean, tmp_path / "run")
    (path / "metrics.jsonl").write_text("{}\n")
    keeper = Keeper(config(CARTPOLE, {**GOALS, "total_env_steps": 3000}), path)
    keeper.open()
    with pytest.raises(ConfigError, match="line 1"):
        keeper.resume()
    keeper.close()
    assert (path / "result.json").read_bytes() == (clean / "result.json").read_bytes()
