"""Rates, a run, clusters and the page's script, which the tests of the capacity plan share."""

import importlib.util
from pathlib import Path

from tiny import PONG, config, replaced

from rl_gns.study.capacity import Cluster, Rates
from rl_gns.study.rates import of

ROOT = Path(__file__).resolve().parent.parent
_spec = importlib.util.spec_from_file_location("capacity_page", ROOT / "scripts" / "capacity_page.py")
page = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(page)
RUN = config(PONG, {"atari": {"frame_size": 84}, "batch": {"size": 256, "segment_steps": 64}, "noise": {"every": 1}})
RATES = Rates(
    of=of(RUN),
    machine={"cpu": "a test's"},
    cores=2,
    emulation=2000.0,
    inference=3000.0,
    block_seconds=0.25,
    block_seconds_alone=0.2,
    block_scatter=0.1,
    put_bytes_per_second=1e9,
    handling_seconds=1e-3,
    handling_seconds_per_actor=1e-5,
    learner=3000.0,
    learner_on="cpu, 2 threads",
    probe_epochs=1.5,
    publish_seconds=0.01,
    bytes_per_env_step=7300.0,
    weights_bytes=6_750_000,
    valid_share=0.99,
    actor_bytes=300 << 20,
    column_bytes=1_100_000,
    memory_bytes=24 << 30,
    copying_seconds=2e-3,
)
ONE_NODE = Cluster(nodes=1, cpus=2, gpus=0, network=10.0, memory=24.0, actors=2)
BIG = Cluster(nodes=100, cpus=64, gpus=0, network=10.0, memory=256.0, actors=6400)
FAST = replaced(RATES, learner=1e7, learner_on="stated", handling_seconds=1e-6, copying_seconds=0.0)
FAST = replaced(FAST, handling_seconds_per_actor=0.0)
