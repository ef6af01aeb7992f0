"""A real cluster of several nodes on this machine, each with a working directory of its own, in a process of its own.

`python cluster_host.py DIRECTORY` reads lines of JSON: {"do": "add", "name": "a", "num_cpus": 1},
{"do": "remove", "name": "a"} or {"do": "drain", "name": "a", "seconds": 60}; it answers each with one. The first node
that is added is the head.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

QUICK_TO_MISS = {
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 5000,
    "health_check_failure_threshold": 4,
    "health_check_initial_delay_ms": 0,
}
STORE_BYTES = 120_000_000
OPEN = {"RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@dataclass
class Host:
    """The tests' side."""

    process: subprocess.Popen
    directory: Path

    def ask(self, do: str, name: str, **more: float) -> dict:
        """Its answer; of `add`: `id`, `pid` of the raylet, and `address` of the cluster."""
        self.process.stdin.write(json.dumps({"do": do, "name": name, **more}) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the cluster's process has ended"
        return json.loads(answer)


@contextlib.contextmanager
def hosted(directory: Path) -> Iterator[Host]:
    """A cluster without nodes, whose directories lie in `directory`; all of it ends with the context."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | OPEN
    here = Path(__file__).resolve().parent
    env["RAY_raylet_start_wait_time_s"] = "240"  # on a busy machine
    env["PYTHONPATH"] = os.pathsep.join([str(here), str(here.parent)])
    command = [sys.executable, __file__, str(directory)]
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Host(process, directory)
        finally:
            process.stdin.close()
            process.wait(60)


def main(directory: Path) -> None:
    from ray.cluster_utils import Cluster

    cluster, nodes = Cluster(), {}
    said, sys.stdout = sys.stdout, sys.stderr
    try:
        for line in sys.stdin:
            asked = json.loads(line)
            do, name = asked.pop("do"), asked.pop("name")
            answer = {"add": add, "remove": remove, "drain": drain}[do](cluster, nodes, directory, name, **asked)
            print(json.dumps(answer), file=said, flush=True)
    finally:
        cluster.shutdown()


def add(cluster, nodes, directory, name, **options) -> dict:
    (directory / name).mkdir()
    os.chdir(directory / name)
    if not nodes:
        options |= {"_system_config": QUICK_TO_MISS, "include_dashboard": False}
    node = nodes[name] = cluster.add_node(object_store_memory=STORE_BYTES, **options)
    return {"id": node.node_id, "pid": node.all_processes["raylet"][0].process.pid, "address": cluster.address}


def remove(cluster, nodes, directory, name) -> dict:
    """At once, as when the machine is gone."""
    cluster.remove_node(nodes[name], allow_graceful=False)
    return {}


def drain(cluster, nodes, directory, name, seconds) -> dict:
    """What a cloud's notice leads to: the node is to go in `seconds`."""
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline = int((time.time() + seconds) * 1000)
    accepted, why = GcsClient(address=cluster.address).drain_node(nodes[name].node_id, reason, "test", deadline)
    return {"accepted": accepted, "why": why}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
