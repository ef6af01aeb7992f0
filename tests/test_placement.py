"""Where a cluster puts what is asked of it: cells on nodes that come later, learners on a GPU that is free."""

import threading
import time

import pytest
from cluster_host import OPEN, hosted
from test_many_nodes import working
from test_sweep import QUICK, Heard
from tiny import CARTPOLE, config, replaced

from rl_gns.config import ConfigError
from rl_gns.distributed import session, trainer_actor
from rl_gns.study.grid import Grid
from rl_gns.study.sweep import sweep
from rl_gns.study.train import train

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]
CELLS = config(CARTPOLE, QUICK | {"goals": [10_000.0], "total_env_steps": 6000})


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    """The host, and name -> node, of which there is one with one CPU; this process has joined it."""
    with hosted(tmp_path_factory.mktemp("nodes")) as host, pytest.MonkeyPatch.context() as patch:
        nodes = {"head": host.ask("add", "head", num_cpus=1)}
        for key, value in OPEN.items():
            patch.setenv(key, value)
        patch.setenv("RAY_ADDRESS", nodes["head"]["address"])
        with session.start(0, 0):
            yield host, nodes


def waiting(address):
    """Tasks that no node has room for, as an autoscaler is told of them."""
    from ray._raylet import GcsClient
    from ray.autoscaler.v2.sdk import get_cluster_resource_state

    return sum(each.count for each in get_cluster_resource_state(GcsClient(address)).pending_resource_requests)


def test_cells_wait_for_a_node_that_comes_and_use_it(joined, tmp_path):
    host, nodes = joined
    raylets, asked = set(), []

    class Watch(Heard):
        def show(self, name, record):
            super().show(name, record)
            if len(nodes) == 1:
                deadline = time.monotonic() + 60
                while not (found := waiting(nodes["head"]["address"])) and time.monotonic() < deadline:
                    time.sleep(0.2)
                asked.append(found)
                nodes["late"] = host.ask("add", "late", num_cpus=1)
            raylets.update(working(name))

    grid = Grid((64, 128), (1e-3,), "sqrt", (0, 1, 2))
    assert sweep(CELLS, grid, tmp_path, Watch()).failed == {}
    assert asked == [1], "one more than the node has room for"
    assert raylets >= {node["pid"] for node in nodes.values()}, "and of no other cluster of this machine, if it is idle"


def test_a_cell_that_fits_on_no_node_waits_for_one_that_comes(joined, tmp_path, caplog):
    host, nodes = joined
    settings = config(CARTPOLE, QUICK | {"goals": [10_000.0], "total_env_steps": 6000, "learner": {"threads": 2}})
    grid = Grid((64,), (1e-3,), "sqrt", (0, 1))
    with pytest.raises(
        ConfigError, match=r"learner\.threads: 2 take 2 CPUs of one node, and the largest has 1; the nearest is 1"
    ):
        sweep(settings, grid, tmp_path / "now", Heard(), cells_at_once=1)
    timer = threading.Timer(5.0, lambda: nodes.update(wide=host.ask("add", "wide", num_cpus=2)))
    timer.start()
    assert sweep(settings, grid, tmp_path / "later", Heard()).failed == {} and "wide" in nodes
    assert caplog.text.count("a cell wants 2 CPUs of one node") == 1
    host.ask("remove", "wide")


class Busy:
    def here(self):
        return True


def test_a_learner_goes_to_a_gpu_that_is_free_and_waits_for_one_if_it_must(joined, tmp_path, monkeypatch, caplog):
    import ray

    host, nodes = joined
    gpu = host.ask("add", "gpu", num_cpus=1, num_gpus=1)
    settings, trainers = replaced(config(CARTPOLE), actors=1), []

    def look(record):
        trainers.extend(working("TrainerHost"))

    busy = ray.remote(num_gpus=1, num_cpus=0)(Busy).remote()
    assert ray.get(busy.here.remote())
    train(settings, tmp_path / "cpu", look)
    assert set(trainers) == {nodes["head"]["pid"]} and "no GPU of the cluster is free" in caplog.text
    monkeypatch.setattr(trainer_actor, "SLOW_START_SECONDS", 2.0)
    must = config(CARTPOLE, {"learner": {"device": "cuda"}, "actors": 1})
    timer, start = threading.Timer(6.0, lambda: ray.kill(busy)), time.monotonic()
    timer.start()
    with pytest.raises(ConfigError, match="'cuda' is not here"):
        train(must, tmp_path / "cuda")
    assert time.monotonic() - start >= 6 and "no word of the trainer for 2 s" in caplog.text
    caplog.clear()
    trainers.clear()
    train(settings, tmp_path / "gpu", look)
    assert set(trainers) == {gpu["pid"]} and "no GPU" not in caplog.text
