"""Three nodes with working directories of their own: the bits of one process, and nodes that come, go and are taken."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from cluster_host import OPEN, hosted
from store_peak import Peak, check_the_store
from test_sweep import QUICK, Heard
from tiny import CARTPOLE, PONG, config, numbers, replaced

from rl_gns.config import ConfigError
from rl_gns.distributed import session, supply, watch
from rl_gns.rundir import RunDir
from rl_gns.study.build import make_learner
from rl_gns.study.grid import Grid
from rl_gns.study.sweep import sweep
from rl_gns.study.train import train
from rl_gns.trainer import Trainer

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]
WIDE_PONG = config(PONG, {"total_env_steps": 11_000, "batch": {"size": 192}, "rollout": {"columns_per_collector": 8}})
WIDE_PONG = replaced(WIDE_PONG, noise=replaced(WIDE_PONG.noise, across_env_steps=0))
WIDE_PONG = replaced(WIDE_PONG, actors=3)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The host, and name -> node; two CPUs on the head, and one on each of the others."""
    with hosted(tmp_path_factory.mktemp("nodes")) as host, pytest.MonkeyPatch.context() as patch:
        nodes = {name: host.ask("add", name, num_cpus=n) for name, n in (("head", 2), ("a", 1), ("b", 1))}
        for key, value in OPEN.items():
            patch.setenv(key, value)
        patch.setenv("RAY_ADDRESS", nodes["head"]["address"])
        yield host, nodes


@pytest.fixture(scope="module")
def joined(cluster):
    with session.start(0, 0):
        yield cluster


def working(title):
    """Raylet -> processes that Ray gave this title."""
    found = {}
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if each.read_text().startswith(f"ray::{title}"):
                raylet = int((each.parent / "stat").read_text().rpartition(") ")[2].split()[1])
                found.setdefault(raylet, []).append(int(each.parent.name))
        except OSError:
            continue
    return found


def weights(path):
    _, state = RunDir(path).newest_checkpoint(len(list(RunDir(path).records())))
    return {name: value for name, value in state["learner"]["network"].items()}


def same_run(one, other, *but):
    mine, theirs = ([numbers(r) for r in RunDir(path).records()] for path in (one, other))
    left_out = ("faults", "replaced_actors") if but else ()
    assert [{k: v for k, v in r.items() if k not in left_out} for r in mine] == [
        {k: v for k, v in r.items() if k not in left_out} for r in theirs
    ]
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys() and len(first) > 4
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_three_nodes_give_the_bits_of_one_process_and_keep_the_store_bounded(joined, tmp_path):
    host, nodes = joined
    hosts = {}

    def look(record):
        if record.update == 1:
            ours = {node["pid"] for node in nodes.values()}  # this machine may have other clusters
            for title in ("TrainerHost", "CollectorHost"):
                hosts[title] = {raylet: len(found) for raylet, found in working(title).items() if raylet in ours}

    with Peak() as peak:
        train(WIDE_PONG, tmp_path / "nodes", look)
    train(replaced(WIDE_PONG, actors=0), tmp_path / "local")
    same_run(tmp_path / "nodes", tmp_path / "local")
    assert list(hosts["TrainerHost"]) == [nodes["head"]["pid"]], "the driver's node: no other has a GPU"
    assert hosts["CollectorHost"] == {node["pid"]: 1 for node in nodes.values()}
    version = sum(each.nbytes for each in weights(tmp_path / "nodes").values())
    check_the_store(peak, nodes["head"]["id"], WIDE_PONG, tmp_path / "nodes", version)
    assert not [kept for path in host.directory.iterdir() for kept in path.iterdir()], (
        "no node wrote anything but the driver's"
    )


def test_a_device_that_no_node_has_is_one_line(joined, tmp_path):
    settings = config(CARTPOLE, {"learner": {"device": "cuda"}, "actors": 1})
    with pytest.raises(ConfigError, match="'cuda' is on no node of the cluster"):
        train(settings, tmp_path)


def test_cells_run_on_every_node_and_lie_in_one_place(joined, tmp_path):
    host, nodes = joined
    settings = config(CARTPOLE, QUICK | {"goals": [10_000.0], "total_env_steps": 6000})
    grid, raylets = Grid((64, 128), (1e-3,), "sqrt", (0, 1)), set()

    class Watch(Heard):
        def show(self, name, record):
            super().show(name, record)
            raylets.update(working(name))

    assert sweep(settings, grid, tmp_path / "nodes", Watch(), cells_at_once=4).failed == {}
    monkey = pytest.MonkeyPatch()
    monkey.delenv("RAY_ADDRESS")
    sweep(settings, grid, tmp_path / "serial", Heard(), cells_at_once=1)
    monkey.undo()
    assert raylets == {node["pid"] for node in nodes.values()}
    names = {d.name for d in (tmp_path / "serial").iterdir() if d.is_dir()}
    assert len(names) == 4
    for name in names:
        same_run(tmp_path / "nodes" / name, tmp_path / "serial" / name)
    assert not [kept for path in host.directory.iterdir() for kept in path.iterdir()]


def rollouts(loop, until, seconds=200.0):
    """Records until that is so."""
    found, deadline = [next(loop)], time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline
        found.append(next(loop))
    return found


class Idle:
    def here(self):
        return True


def told(records):
    return [(f.what, f.collectors, f.generations) for r in records for f in r.faults]


def test_nodes_are_drained_lost_and_added(joined, monkeypatch):
    """One run on three actors, four collectors: node b is left when it is drained, and goes; c comes, and is left for
    d, which has come meanwhile, and dies."""
    import ray

    from rl_gns.distributed.rollout_actors import RaySource

    host, nodes = joined
    monkeypatch.setattr(supply, "LOOK_SECONDS", 0.2)
    settings = config(CARTPOLE, {"total_env_steps": 10_000_000})
    source = RaySource(settings, 3)
    roster, generations = source._crew._roster, source._crew._generations
    where = lambda: {place.node: roster.hosted(place) for place in roster.places}  # noqa: E731
    loop = Trainer(settings, make_learner(settings), source).run()
    assert told(rollouts(loop, lambda: len(where()) == 3)) == []
    spare = ray.remote(num_cpus=1)(Idle).remote()  # takes the CPU that is left: what goes can start nowhere else
    assert ray.get(spare.here.remote())
    (theirs,) = [hosted for node, hosted in where().items() if node == nodes["b"]["id"]]
    assert host.ask("drain", "b", seconds=300)["accepted"]
    records = rollouts(loop, lambda: nodes["b"]["id"] not in where())
    host.ask("remove", "b")
    records += list(itertools.islice(loop, 20))
    moved = dict.fromkeys(theirs, 1)
    assert told(records) == [("draining", theirs, [1] * len(theirs))], "and its end cost nothing"
    assert sum(map(len, where().values())) == 4 and len(roster.places) == 2

    nodes["c"] = host.ask("add", "c", num_cpus=1)
    records = rollouts(loop, lambda: nodes["c"]["id"] in where())
    ((what, taken, new),) = told(records)
    assert what == "moved" and taken == where()[nodes["c"]["id"]] != [] and len(roster.places) == 3
    moved |= dict(zip(taken, new, strict=True))
    assert {c: generations.of(c) for c in range(4)} == dict.fromkeys(range(4), 0) | moved

    nodes["d"] = host.ask("add", "d", num_cpus=1)
    deadline = time.monotonic() + 60
    while not supply.free_cpus(()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert host.ask("drain", "c", seconds=300)["accepted"]
    places = []
    records = rollouts(loop, lambda: places.append(len(roster.places)) or nodes["c"]["id"] not in where())
    host.ask("remove", "c")
    records += list(itertools.islice(loop, 20))
    moved |= {c: moved[c] + 1 for c in taken}
    assert told(records) == [("draining", taken, [moved[c] for c in taken])], "what c hosted, and no others"
    assert where()[nodes["d"]["id"]] == taken and set(places) == {3}, "d's actor was there before c's ended"

    monkeypatch.setattr(watch, "UNPLACED_SECONDS", 4.0)
    host.ask("remove", "d")
    records = rollouts(loop, lambda: len(roster.places) == 2)
    (died, lost, _), (unplaced, again, _) = told(records)
    assert (died, unplaced) == ("died", "not placed") and lost == again == taken, "its own collectors, and no others"
    moved |= {c: moved[c] + 1 for c in lost}
    assert {c: generations.of(c) for c in range(4)} == dict.fromkeys(range(4), 0) | moved
    assert all(r.collected_env_steps == r.requested_env_steps for r in records)
    source.close()
    ray.kill(spare)


def of_the_trainer(result):
    return [fault for fault in result["faults"] if fault["reason"].startswith("the trainer:")]


def test_a_trainer_whose_node_dies_goes_on_from_its_checkpoint(joined, tmp_path):
    """The learner's node is one with a GPU (by its word: `auto` is settled there), until it dies; then the driver's."""
    host, nodes = joined
    gpu = host.ask("add", "gpu", num_cpus=2, num_gpus=1)
    settings = replaced(config(CARTPOLE, {"checkpoint": {"every_env_steps": 1000}}), actors=2, total_env_steps=8000)
    trainers = []

    def look(record):
        if record.env_steps > 2000:
            trainers.append(next(iter(working("TrainerHost")), None))
            if len(trainers) == 1:
                host.ask("remove", "gpu")

    result = train(settings, tmp_path / "nodes", look)
    train(replaced(settings, actors=0), tmp_path / "local")
    assert trainers[0] == gpu["pid"] and nodes["head"]["pid"] in trainers
    broken_off = [fault["what"] for fault in of_the_trainer(result)]
    assert set(broken_off) <= {"trainer lost", "draining"}
    assert len(broken_off) in (1, 2), "a node that ends may drain first, and Ray may offer it for some seconds more"
    provenance = json.loads((tmp_path / "nodes" / "provenance.json").read_text())
    assert 2 <= len(provenance) <= len(broken_off) + 1, "one lost at once writes none; none follows the last"
    assert {sitting["resolved"]["device"] for sitting in provenance} == {"cpu"}
    same_run(tmp_path / "nodes", tmp_path / "local", "faults")


def test_a_trainer_whose_node_is_drained_leaves_it_and_nothing_is_played_twice(joined, tmp_path):
    host, nodes = joined
    gpu = host.ask("add", "spot", num_cpus=2, num_gpus=1)
    settings = replaced(config(CARTPOLE), actors=2, total_env_steps=60_000)  # it is ahead of what the driver was told
    trainers = []

    def look(record):
        if record.env_steps > 2000:
            trainers.append(next(iter(working("TrainerHost")), None))
            if len(trainers) == 1:
                assert host.ask("drain", "spot", seconds=300)["accepted"]

    result = train(settings, tmp_path / "nodes", look)
    host.ask("remove", "spot")
    train(replaced(settings, actors=0), tmp_path / "local")
    assert trainers[0] == gpu["pid"] and trainers[-1] == nodes["head"]["pid"]
    (left,) = of_the_trainer(result)
    assert left["what"] == "draining" and left["cost_env_steps"] == 0
    same_run(tmp_path / "nodes", tmp_path / "local", "faults")


def test_a_terminated_driver_leaves_no_actor(cluster, tmp_path):
    path, file = tmp_path / "run", tmp_path / "run.toml"
    table = {**CARTPOLE, "total_env_steps": 5_000_000, "checkpoint": {"every_env_steps": 2_000_000}}
    file.write_text(tomli_w.dumps(table))
    command = [sys.executable, "-m", "rl_gns", "train", "--config", str(file), "--actors", "2", "--run-dir", str(path)]
    process = subprocess.Popen(command, env=dict(os.environ), stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    deadline = time.monotonic() + 180
    while not (path.is_dir() and len(list(RunDir(path).records())) > 20):
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
        time.sleep(0.1)
    assert working("TrainerHost") and working("CollectorHost")
    process.send_signal(signal.SIGTERM)
    words = process.communicate(timeout=60)[1]
    said = [line for line in words.splitlines() if line.startswith("rl-gns: ")]
    assert process.returncode == 143 and len(said) == 1 and "run the same command again" in said[0]
    deadline = time.monotonic() + 60
    while (working("TrainerHost") or working("CollectorHost")) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not working("TrainerHost") and not working("CollectorHost")
    records = list(RunDir(path).records())
    _, state = RunDir(path).newest_checkpoint(len(records))
    assert state["counters"]["env_steps"] == records[-1]["env_steps"] > 0
