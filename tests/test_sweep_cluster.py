"""Cells as Ray tasks: the bits of the serial sweep, processes that are killed, and a driver that is."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tomli_w
from test_sweep import QUICK, Heard
from tiny import CARTPOLE, config, numbers, replaced

from rl_gns.config import ConfigError
from rl_gns.distributed import session, tasks
from rl_gns.rundir import RunDir
from rl_gns.study.grid import Grid
from rl_gns.study.sweep import sweep

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]
SETTINGS = replaced(
    config(CARTPOLE, QUICK | {"checkpoint": {"every_env_steps": 1000}}),
    goals=(15.0, 10_000.0),
    total_env_steps=4000,
    evaluation_episodes=4,
)
GRID = Grid((64, 128), (1e-3,), "sqrt", (0, 1))


@pytest.fixture(scope="module")
def ray_session():
    with session.start(4, 100_000_000):
        yield


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    path = tmp_path_factory.mktemp("serial")
    assert sweep(SETTINGS, GRID, path, Heard(), cells_at_once=1).failed == {}
    return path


def told(path):
    """Cell -> its records without their seconds, and result.json likewise."""
    runs = [d for d in path.iterdir() if d.is_dir()]
    return {d.name: ([numbers(r) for r in RunDir(d).records()], numbers(RunDir(d).read_result())) for d in runs}


@pytest.mark.parametrize("actors", [0, 1])
def test_cells_on_ray_give_the_bits_of_cells_in_turn(ray_session, serial, tmp_path, actors):
    """With an actor each, a cell has a placement group: its own bundle and one for the actor."""
    heard = Heard()
    result = sweep(replaced(SETTINGS, actors=actors), GRID, tmp_path, heard, cells_at_once=2)
    assert result.failed == {} and len(heard.trained) == 4
    assert told(tmp_path) == told(serial)
    assert (tmp_path / "points.csv").read_bytes() == (serial / "points.csv").read_bytes()


def doomed(where, lives):
    """A job that kills its own process until it has run `lives` times; tells the try and two numbers."""
    tries = Path(where) / "tries"
    n = len(tries.read_text()) if tries.exists() else 0
    tries.write_text("x" * (n + 1))
    yield n
    if n < lives:
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
    yield "end"


def broken():
    yield 1
    raise KeyError("the real reason")


def count(n):
    yield from range(n)


def jobs(kind, *arguments):
    return {"doomed": doomed, "broken": broken, "count": count}[kind](*arguments)


def test_a_lost_process_is_replaced_a_few_times_and_an_error_ends_its_job_alone(ray_session, tmp_path):
    for name in ("twice", "always"):
        (tmp_path / name).mkdir()
    given = {
        "twice": ("doomed", tmp_path / "twice", tasks.RETRIES),
        "always": ("doomed", tmp_path / "always", 99),
        "broken": ("broken",),
        "long": ("count", 50),
    }
    import ray

    heard = {name: [] for name in given}
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests
    shape = tasks.shape([4], 1, 0, 3)
    for name, what in tasks.as_tasks(list(given), jobs, lambda name: given[name], shape):
        heard[name].append(what)
    assert [w.value for w in heard["long"][:-1]] == list(range(50)) and heard["long"][-1] == tasks.Ended()
    item, failed = heard["broken"]
    assert (
        item.value == 1 and failed.traceback.endswith("KeyError: 'the real reason'\n") and "broken" in failed.traceback
    )
    assert sum(isinstance(w, tasks.Lost) for w in heard["twice"]) == tasks.RETRIES
    assert heard["twice"][-2:] == [tasks.Item("end"), tasks.Ended()]
    assert isinstance(heard["always"][-1], tasks.Failed) and "lost 3 times" in heard["always"][-1].traceback
    assert len((tmp_path / "always" / "tries").read_text()) == 1 + tasks.RETRIES


def test_in_turn_tells_the_same(tmp_path):
    given = {"broken": ("broken",), "long": ("count", 3)}
    heard = list(tasks.in_turn(list(given), jobs, lambda name: given[name]))
    assert [w.value for n, w in heard if n == "long" and isinstance(w, tasks.Item)] == [0, 1, 2]
    assert heard[1][0] == "broken" and heard[1][1].traceback.endswith("KeyError: 'the real reason'\n")


@pytest.mark.parametrize(
    ("cpus", "threads", "actors", "at_once", "expected"),
    [
        (2, 1, 0, 0, (1.0, 2)),
        (2, 1, 0, 4, (0.5, 4)),
        (2, 1, 0, 3, (0.66, 3)),
        (8, 2, 0, 0, (2.0, 4)),
        (8, 2, 0, 5, (1.0, 5)),
        (6, 1, 2, 0, (1.0, 2)),
        (6, 1, 1, 4, (0.5, 4)),
        (1, 2, 0, 1, (1.0, 1)),
    ],
)
def test_jobs_share_the_cpus(cpus, threads, actors, at_once, expected):
    shape = tasks.shape([cpus], threads, actors, at_once)
    assert (shape.cpus, shape.at_once) == (pytest.approx(expected[0]), expected[1])
    assert shape.at_once * (shape.cpus + actors) <= cpus and shape.grows == (at_once == 0)


def test_more_actors_than_cpus_is_one_line():
    with pytest.raises(ConfigError, match="the most is 2"):
        tasks.shape([4, 2], 1, 2, 3)


def test_a_cell_that_fits_on_no_node_is_one_line():
    with pytest.raises(
        ConfigError, match=r"learner\.threads: 4 take 4 CPUs of one node, and the largest has 2; .* is 2"
    ):
        tasks.shape([2.0] * 8, 4, 0, 2)


@pytest.mark.parametrize(
    ("nodes", "threads", "actors"), [([0.0], 1, 0), ([1.0], 1, 1), ([1.0], 2, 0), ([2.0] * 8, 4, 0), ([2.0, 1.0], 2, 2)]
)
def test_where_later_nodes_count_a_cell_that_fits_on_none_waits_for_one(caplog, nodes, threads, actors):
    """All of what it wants is asked for, so that an autoscaler starts a node that has it."""
    shape = tasks.shape(nodes, threads, actors, 0)
    assert (shape.cpus, shape.actors, shape.grows) == (threads, actors, True) and shape.at_once >= 1
    (said,) = caplog.messages
    assert said.startswith(f"a cell wants {threads} CPUs of one node and {actors} more for its actors")


def test_nodes_that_a_cell_fits_on_are_no_warning(caplog):
    assert tasks.shape([2.0] * 8, 2, 0, 0).at_once == 8
    assert tasks.shape([0.0, 2.0, 2.0], 2, 2, 0).at_once == 1 and not caplog.messages


def test_the_cluster_is_not_asked_for_its_nodes_at_every_item(ray_session, monkeypatch):
    import ray

    looks, listed = [], tasks.node_cpus
    monkeypatch.setattr(tasks, "node_cpus", lambda: looks.append(time.monotonic()) or listed())
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    shape, begun = tasks.shape([4], 1, 0, 0), time.monotonic()
    names = [str(k) for k in range(30)]
    heard = [what for _, what in tasks.as_tasks(names, jobs, lambda name: ("count", 10), shape)]
    assert heard.count(tasks.Ended()) == 30 and len(heard) == 330
    assert len(looks) <= 1 + time.monotonic() - begun


class Killer(Heard):
    """Kills the process of the first cell that is past a checkpoint, once."""

    def __init__(self, path):
        super().__init__()
        self.path, self.victim = path, None

    def show(self, name, record):
        super().show(name, record)
        if self.victim is None and RunDir(self.path / name).checkpoints():
            self.victim = name
            (pid,) = working(name)
            os.kill(pid, signal.SIGKILL)


def working(name):
    """Processes of this user that run the task of that name, as Ray titles them."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if each.read_text().startswith(f"ray::{name}"):
                found.append(int(each.parent.name))
        except OSError:
            continue
    return found


def test_a_killed_cell_goes_on_from_its_checkpoint_to_the_same_bits(ray_session, serial, tmp_path):
    path, whole = tmp_path / "killed", tmp_path / "whole"
    killer = Killer(path)
    longer = replaced(SETTINGS, total_env_steps=12_000)
    grid = Grid((64,), (1e-3,), "sqrt", (0, 1))
    assert sweep(longer, grid, path, killer, cells_at_once=2).failed == {}
    provenance = json.loads((path / killer.victim / "provenance.json").read_text())
    assert len(provenance) == 2, "it was lost, and began again"
    (unkilled,) = killer.trained - {killer.victim}
    assert len(json.loads((path / unkilled / "provenance.json").read_text())) == 1
    sweep(longer, grid, whole, Heard(), cells_at_once=1)
    assert told(path) == told(whole)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=lambda n: n.name)
def test_a_killed_sweep_goes_on_and_leaves_no_process(tmp_path, number):
    """At most one checkpoint interval of a cell is computed twice, and none of its bits differ."""
    table = {**CARTPOLE, "goals": [10_000.0], "evaluation_episodes": 4, "total_env_steps": 12_000}
    table |= {"batch": {**CARTPOLE["batch"], **QUICK["batch"]}, "checkpoint": {"every_env_steps": 1000}}
    file, path = tmp_path / "grid.toml", tmp_path / "sweep"
    file.write_text(tomli_w.dumps(table | {"sweep": {"batch_sizes": [64, 128], "learning_rates": [1e-3]}}))
    command = [sys.executable, "-m", "rl_gns", "sweep", "--config", str(file), "--cells-at-once", "2", "--run-dir"]
    process = subprocess.Popen([*command, str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 400
    while not any(RunDir(d).checkpoints() for d in path.glob("B*")):
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
        time.sleep(0.05)
    names = [d.name for d in path.glob("B*")]
    workers = [pid for name in names for pid in working(name)]
    os.kill(process.pid, number)
    said = process.communicate(timeout=120)[1]
    if number == signal.SIGINT:
        assert process.returncode == 130 and "run the same command again" in said and "Traceback" not in said
    for run in (RunDir(path / name) for name in names):
        kept = int(run.checkpoints()[-1].name) if run.checkpoints() else 0
        recorded = max((r["env_steps"] for r in run.records()), default=0)
        assert recorded - kept < 1000 + 128, "an interval and a rollout"
    assert workers and all(gone(pid) for pid in workers)
    one_by_one = [*command, str(path), "--cells-at-once", "1", "--json"]
    again = subprocess.run(one_by_one, check=True, capture_output=True, text=True)
    assert json.loads(again.stdout)["failed"] == {}
    subprocess.run([*command, str(tmp_path / "whole"), "--cells-at-once", "1"], check=True, capture_output=True)
    assert told(path) == told(tmp_path / "whole")


def gone(pid, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] in "ZX":
                return True
        except OSError:
            return True
        time.sleep(0.1)
    return False
