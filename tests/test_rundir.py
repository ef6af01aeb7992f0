"""Run directories: whole files, whole lines, whole checkpoints."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import CARTPOLE, config, finished, replaced

from rl_gns.checkpoint import read_checkpoint
from rl_gns.config import ConfigError
from rl_gns.records import to_json
from rl_gns.rundir import RunDir, write_text


@pytest.fixture(scope="module")
def records():
    return finished(config(CARTPOLE))[1]


@pytest.fixture
def run(tmp_path):
    opened = RunDir(tmp_path / "run")
    opened.open(config(CARTPOLE))
    yield opened
    opened.close()


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=60, deadline=None)
@given(plain, st.sampled_from(["f4", "f8", "i8", "u1", "?"]), st.lists(st.integers(0, 3), max_size=3))
def test_any_state_reads_back_as_it_was(tmp_path_factory, value, dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    run = RunDir(tmp_path_factory.mktemp("any"))
    run.save_checkpoint(5, {"value": value, "nested": [{"array": array, "again": [array]}]})
    back = run.load_checkpoint()
    assert back["value"] == value
    for found in (back["nested"][0]["array"], back["nested"][0]["again"][0]):
        assert found.dtype == array.dtype and found.shape == array.shape and (found == array).all()


def test_two_checkpoints_are_kept_and_the_newest_whole_one_is_read(run):
    for n in (10, 20, 30):
        run.save_checkpoint(n, {"n": n, "array": np.full(3, n)})
    assert [p.name for p in run.checkpoints()] == ["000000000020", "000000000030"]
    assert run.load_checkpoint()["n"] == 30
    (run.checkpoints()[-1] / "arrays.safetensors").write_bytes(b"cut short")
    assert run.load_checkpoint()["n"] == 20
    (run.checkpoints()[0] / "state.json").write_text("{")
    with pytest.raises(ConfigError, match="no checkpoint can be read"):
        run.load_checkpoint()


def test_a_kill_while_an_old_checkpoint_is_removed_leaves_whole_ones(run, monkeypatch):
    def half(folder, ignore_errors=False):
        if ignore_errors:  # of a draft of the same name, before it is written
            return
        (Path(folder) / "arrays.safetensors").unlink()
        raise KeyboardInterrupt

    for n in (10, 20):
        run.save_checkpoint(n, {"n": n, "array": np.full(3, n)})
    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr("rl_gns.rundir.shutil.rmtree", half)
        run.save_checkpoint(30, {"n": 30, "array": np.full(3, 30)})
    assert [read_checkpoint(folder)["n"] for folder in run.checkpoints()] == [20, 30]
    run.close()
    run.open(config(CARTPOLE))
    assert sorted(p.name for p in (run.path / "checkpoints").iterdir()) == [f"{20:012d}", f"{30:012d}"]


def test_a_draft_that_a_crash_left_is_no_checkpoint(run):
    run.save_checkpoint(10, {"n": 1})
    (run.path / "checkpoints" / ".000000000020.tmp").mkdir()
    assert run.load_checkpoint()["n"] == 1
    run.save_checkpoint(20, {"n": 2})
    assert read_checkpoint(run.checkpoints()[-1])["n"] == 2
    assert not list((run.path / "checkpoints").glob(".*"))


def test_nothing_on_disk_is_a_pickle(run):
    run.save_checkpoint(10, {"array": np.zeros(3)})
    files = [p for p in run.path.rglob("*") if p.is_file()]
    assert {p.suffix for p in files} <= {".toml", ".json", ".jsonl", ".safetensors", ""}


def test_each_update_stands_once_after_a_cut(run, records):
    for record in records:
        run.append(record)
    with open(run.metrics, "a") as log:
        log.write('{"update": 99, "cut sho')
    assert len(list(run.records())) == len(records)
    run.close()
    run.cut_back(2)
    run.append(records[2])
    assert [r["update"] for r in run.records()] == [0, 1, 2]
    with pytest.raises(ConfigError, match="not updates 0 to 4"):
        run.cut_back(5)


def test_lines_are_strict_json_with_null_for_what_is_missing(run, records):
    run.append(records[0])
    line = json.loads(run.metrics.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert line["noise"] is None and line["update"] == 0


def test_lines_of_before_a_field_came_are_read(run, records):
    line = to_json(records[0])
    assert line.pop("exact_resume") is False
    run.metrics.write_text(json.dumps(line) + "\n")
    assert list(run.records()) == [line]


def test_another_experiment_is_refused_by_key(run, tmp_path):
    run.close()
    settings_ = config(CARTPOLE, {"learner": {"learning_rate": 0.5}})
    with pytest.raises(ConfigError, match=r"learner.learning_rate: 0.001 there, 0.5 here"):
        RunDir(run.path).open(settings_)
    longer = replaced(config(CARTPOLE), total_env_steps=9999, actors=2)
    again = RunDir(run.path)
    again.open(longer)
    again.close()


@pytest.mark.parametrize("name", ["notes.txt", "checkpoints/.model.tmp/weights.bin"])
def test_a_directory_of_something_else_is_refused_and_left_alone(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("theirs")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=f"holds something else \\({re.escape(name.removesuffix('/weights.bin'))}\\)"):
        RunDir(tmp_path).open(config(CARTPOLE))
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path / name).read_text() == "theirs"


def test_two_processes_never_share_a_directory(run):
    with pytest.raises(ConfigError, match="in use"):
        RunDir(run.path).open(config(CARTPOLE))


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    write_text(path, "old")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_text(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file.json"]


def test_lines_after_a_cut_in_the_same_sitting_are_in_the_file(run, records):
    for record in records[:3]:
        run.append(record)
    run.cut_back(1)
    run.append(records[1])
    assert [r["update"] for r in run.records()] == [0, 1]


def test_a_directory_that_goes_with_the_job_is_refused(tmp_path, monkeypatch):
    """Where Ray unpacks a job's upload (test_ray_job finds that name on a real node)."""
    job = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_0123"
    job.mkdir(parents=True)
    monkeypatch.chdir(job)
    with pytest.raises(ConfigError, match="RL_GNS_RUNS"):
        RunDir("runs/cartpole").open(config(CARTPOLE))
    assert list(job.iterdir()) == []
