"""A real second node is killed with all of its actors: rescheduled on what is left, or taken over by the others."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]

SCRIPT = """
import json, os, re, sys, threading, time
from pathlib import Path
os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
import ray
from ray.cluster_utils import Cluster
from tiny import CARTPOLE, config
from rl_gns.distributed import session, watch
from rl_gns.study.build import make_learner
from rl_gns.trainer import Trainer

settings = config(CARTPOLE, {"batch": {"segment_steps": 512, "size": 4096}, "total_env_steps": 40_000})
cluster = Cluster(initialize_head=True, head_node_args={
    "num_cpus": 3,
    "object_store_memory": 100_000_000,
    "_system_config": {"health_check_period_ms": 500, "health_check_timeout_ms": 1000,
                       "health_check_failure_threshold": 2, "health_check_initial_delay_ms": 0},
})

def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])

def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False

@ray.remote(num_cpus=2)
class Tenant:  # holds two of the head's three CPUs, so that two of three rollout actors must go to the second node
    def ready(self):
        return True

def lose_a_node(free_the_head):
    from rl_gns.distributed.rollout_actors import RaySource

    tenant = Tenant.remote()
    ray.get(tenant.ready.remote())
    node = cluster.add_node(num_cpus=2, object_store_memory=100_000_000)
    raylet = node.all_processes["raylet"][0].process.pid
    source = RaySource(settings, 3)
    run = Trainer(settings, make_learner(settings), source)
    loop = run.run()
    watch.UNPLACED_SECONDS = 600.0
    records = [next(loop)]
    watch.UNPLACED_SECONDS = 15.0 if not free_the_head else 600.0
    places = list(source._crew._places)
    pids = [int(re.search(r"pid (\\d+)", place.where)[1]) for place in places]
    theirs = [pid for pid in pids if parent(pid) == raylet]
    if free_the_head:
        ray.kill(tenant)
    killer_saw = []
    def kill():
        while not all(place.calls for place in places):
            time.sleep(0.001)
        killer_saw.extend(not ray.wait([next(iter(place.calls))], timeout=0)[0] for place in places)
        cluster.remove_node(node, allow_graceful=False)
    killer = threading.Thread(target=kill)
    killer.start()
    records += list(loop)
    killer.join()
    if not free_the_head:
        ray.kill(tenant)
    deadline = time.monotonic() + 30
    while any(map(alive, [*theirs, raylet])) and time.monotonic() < deadline:
        time.sleep(0.1)
    out = dict(
        theirs=theirs, all=pids, in_a_block=killer_saw, left=[pid for pid in [*theirs, raylet] if alive(pid)],
        places=len(source._crew._places),
        faults=[[f.what, f.collectors, f.generations, f.reason] for r in records for f in r.faults],
        now=[int(re.search(r"pid (\\d+)", place.where)[1]) for place in source._crew._places],
        updates=[r.update for r in records], rows=[[r.requested_env_steps, r.collected_env_steps] for r in records],
        replaced=[r.replaced_actors for r in records],
    )
    source.close()
    return out

with session.start(0, 0, cluster.address):
    print(json.dumps([lose_a_node(True), lose_a_node(False)]))
cluster.shutdown()
"""


def test_a_killed_nodes_actors_are_rescheduled_or_their_work_is_taken_over():
    here = Path(__file__).parent
    env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    env |= {"PYTHONPATH": os.pathsep.join([str(here), str(here.parent), env.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    freed, full = json.loads(done.stdout.splitlines()[-1])
    for found in (freed, full):
        assert len(found["theirs"]) == 2 and len(found["all"]) == 3 and found["left"] == [], "the node's own processes"
        assert not set(found["theirs"]) & set(found["now"])
        assert found["updates"] == list(range(len(found["updates"]))) and len(found["updates"]) >= 3
        assert all(row == [8192, 8192] for row in found["rows"])
        assert all(found["in_a_block"]) and sum(found["replaced"]) == 2
        moved = {c: g for what, cs, gs, _ in found["faults"] if what == "died" for c, g in zip(cs, gs, strict=True)}
        assert len(moved) in (2, 3) and set(moved.values()) == {1}, "of four collectors, those of two actors"
    assert freed["places"] == 3 and {what for what, *_ in freed["faults"]} == {"died"}
    assert full["places"] == 1 and [what for what, *_ in full["faults"]].count("not placed") == 2
