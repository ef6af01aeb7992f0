"""What the trainer takes of a cluster, and leaves: CPUs for its learners' GPUs, for other people's work, and their room
when its process is lost. The GPUs are Ray's word alone."""

import contextlib
import os
import signal
import sys
import threading
import time
from dataclasses import replace

import pytest
from cluster_host import OPEN, hosted
from test_many_nodes import working
from tiny import CARTPOLE, config, replaced

from rl_gns.config import RunConfig
from rl_gns.config_file import from_table
from rl_gns.distributed import session
from rl_gns.study.build import checked
from rl_gns.study.elsewhere import _wanted
from rl_gns.study.train import train

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]
ALL = {"learner": {"device": "cpu", "threads": 0}, "actors": 1}
ONE, SHARED = config(CARTPOLE, ALL), {"learners": 2, "noise": {"across_env_steps": 0}}
TWO = checked(from_table(ALL | SHARED, from_table(CARTPOLE, RunConfig())), several_learners=True)


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    """Name -> node; the head has 4 CPUs and 2 GPUs, the other 4 CPUs; this process has joined them."""
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests
    with hosted(tmp_path_factory.mktemp("nodes")) as host, pytest.MonkeyPatch.context() as patch:
        nodes = {"head": host.ask("add", "head", num_cpus=4, num_gpus=2), "other": host.ask("add", "other", num_cpus=4)}
        for key, value in OPEN.items():
            patch.setenv(key, value)
        patch.setenv("RAY_ADDRESS", nodes["head"]["address"])
        patch.delenv("OMP_NUM_THREADS", raising=False)
        with session.start(0, 0):
            yield nodes


def there(wanted, work=lambda ends: iter([None])):
    """What the work of such a trainer gives."""
    from rl_gns.distributed import trainer_actor

    return [told.value for told in trainer_actor.events(work, tuple, wanted, lambda: False)]


def room_of_learners(ends):
    """Whether two learners with a GPU each find room."""
    from ray.util.placement_group import placement_group, remove_placement_group

    group = placement_group([{"CPU": 1.0, "GPU": 1.0}] * 2, strategy="PACK")
    yield group.wait(20)
    remove_placement_group(group)


def test_a_trainer_of_several_learners_leaves_the_cpus_of_their_gpus(joined):
    from rl_gns.distributed import trainer_actor

    assert there(_wanted(TWO), room_of_learners) == [True]
    taken = [trainer_actor._place(_wanted(settings))[0]["num_cpus"] for settings in (ONE, TWO)]
    assert taken == [4, 1]


class Busy:
    def here(self):
        return True


@contextlib.contextmanager
def held(node, seconds=1e4, **resources):
    """Somebody has so much of that node, for so long."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node["id"], soft=False)
    busy = ray.remote(Busy).options(scheduling_strategy=there, **resources).remote()
    assert ray.get(busy.here.remote())
    timer = threading.Timer(seconds, lambda: ray.kill(busy))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        ray.kill(busy)


def test_a_trainer_takes_the_cpus_that_are_free_and_does_not_wait_for_the_others(joined):
    from rl_gns.distributed import trainer_actor

    with held(joined["head"], 40, num_cpus=1):
        start = time.monotonic()
        assert trainer_actor._place(_wanted(ONE))[0]["num_cpus"] == 3
        assert there(_wanted(ONE)) == [None] and time.monotonic() - start < 35


def has_gpu(ends):
    yield bool(os.environ.get("CUDA_VISIBLE_DEVICES"))


def test_a_learner_on_auto_waits_for_a_gpu_where_no_cpu_is_free_either(joined, caplog):
    from rl_gns.distributed import trainer_actor

    auto = trainer_actor.Wanted("auto", 0, 1)
    with held(joined["head"], num_gpus=2, num_cpus=2):
        assert there(auto, has_gpu) == [False] and "no GPU of the cluster is free" in caplog.text
    with held(joined["head"], 10, num_gpus=2, num_cpus=4):
        assert there(auto, has_gpu) == [True]


def test_the_room_of_learners_whose_trainer_is_lost_is_given_back(joined, tmp_path):
    """Four CPUs are free, as many as the run takes: a trainer, two learners, a rollout actor."""
    from ray.util import placement_group_table

    settings = replaced(TWO, learner=replace(TWO.learner, threads=1), total_env_steps=30_000)
    settings, killed = replaced(settings, checkpoint=replace(TWO.checkpoint, every_env_steps=1000)), []

    def look(record):
        if record.env_steps > 2000 and not killed:
            killed.extend(working("TrainerHost")[joined["head"]["pid"]])
            os.kill(killed[0], signal.SIGKILL)

    with held(joined["other"], num_cpus=4):
        result = train(settings, tmp_path / "run", look)
    assert result["env_steps"] >= 30_000 and "trainer lost" in [fault["what"] for fault in result["faults"]]
    rooms = [room for room in placement_group_table().values() if room["name"].startswith("learners of ")]
    assert len(rooms) == 2 and {room["state"] for room in rooms} == {"REMOVED"}
