"""What the object stores of a cluster's nodes held at most, and may hold."""

import threading

from rl_gns.rundir import RunDir
from rl_gns.study.build import STORE_BLOCKS, rollout_bytes


class Peak:
    """The most bytes that each node's object store held, looked at every few milliseconds."""

    def __init__(self):
        import ray
        from ray._private.internal_api import node_stats

        self.bytes = {node["NodeID"]: 0 for node in ray.nodes() if node["Alive"]}
        self._ask = {
            node["NodeID"]: lambda node=node: node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], False)
            for node in ray.nodes()
            if node["Alive"]
        }
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self):
        while not self._over.wait(0.005):
            for node, ask in self._ask.items():
                self.bytes[node] = max(self.bytes[node], ask().store_stats.object_store_bytes_used)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._over.set()
        self._thread.join()


def check_the_store(peak, learners_node, settings, path, version):
    """Never more than `STORE_BLOCKS` blocks an actor, two versions of the weights, `version` bytes each, and a
    checkpoint on its way to the driver. The blocks that were put, and the weights too, are twice as much, so that a
    kind that is never let go is seen."""
    rollouts = len(list(RunDir(path).records()))
    block = rollout_bytes(settings) // settings.collectors(settings.batch.size)
    checkpoint = sum(file.stat().st_size for file in RunDir(path).checkpoints()[-1].iterdir())
    most = STORE_BLOCKS * settings.actors * block + 2 * version + checkpoint
    assert 2 * most < rollouts * version < rollouts * 3 * block
    assert peak.bytes[learners_node] >= block, "what the learner was sent was seen in its node's store"
    assert max(peak.bytes.values()) <= most
