"""The plan of a cluster: its arithmetic against a queueing simulation, its words against every kind of nonsense."""

import contextlib
import dataclasses
import io
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from capacity_rates import BIG, FAST, ONE_NODE, RATES, RUN
from hypothesis import given, settings
from hypothesis import strategies as st
from queueing import mean_seconds
from rich.console import Console
from tiny import CARTPOLE, PONG, config, replaced

from rl_gns.distributed import session
from rl_gns.records import to_json
from rl_gns.study import capacity, machine_limits
from rl_gns.study.bench_components import Components, serialised_bytes
from rl_gns.study.build import STORE_BLOCKS
from rl_gns.study.capacity import Cluster, arrival, order_statistic, predict
from rl_gns.study.capacity_plan import plan
from rl_gns.study.capacity_table import show, words
from rl_gns.study.rates import measured, of

ROOT = Path(__file__).resolve().parent.parent


def test_collecting_takes_as_long_as_in_a_queueing_simulation():
    """Gamma service times, 1 to 64 actors, 1 to 3 turns, link and driver idle to twice overloaded: within 10 % (seen:
    -9 % to +1 %; seeded, so no false alarms). Without the wait for the slowest actor the formula is off by a third."""
    control = []
    for actors, turns, scatter in itertools.product((1, 4, 64), (1, 3), (0.05, 0.3)):
        for network, driver in itertools.product((0.0, 0.5, 2.0), (0.0, 0.8)):
            queue = (actors, actors * turns, 1.0, scatter, network / actors, driver / actors)
            simulated = mean_seconds(0, max(5, 600 // (actors * turns)), *queue)
            assert 0.9 < arrival(*queue) / simulated < 1.1, queue
            control.append(arrival(*queue[:3], 0.0, *queue[4:]) / simulated)
    assert min(control) < 0.67


def test_a_thousand_actors_and_ten_thousand_in_the_same_simulation():
    """At the scatter that was measured within 5 % (seen: -3 % to +2 %), link and driver idle to twice overloaded. At
    three times that the slowest of so many gamma numbers is further out than the formula's: up to a fifth too short."""
    for actors, turns in ((1024, 1), (1024, 3), (10_240, 1)):
        for network, driver in ((0.0, 0.0), (0.5, 0.8), (2.0, 0.8)):
            queue = (actors, actors * turns, 1.0, 0.1, network / actors, driver / actors)
            assert 0.95 < arrival(*queue) / mean_seconds(0, 3, *queue) < 1.05, queue
    wide = (10_240, 10_240, 1.0, 0.3, 0.0, 0.0)
    assert 0.78 < arrival(*wide) / mean_seconds(0, 3, *wide) < 0.86
    assert arrival(*wide[:3], 0.0, 0.0, 0.0) / mean_seconds(0, 3, *wide) < 0.5, "without the wait for the slowest"


def test_order_statistics_of_normal_numbers():
    assert order_statistic(1, 1) == 0 and order_statistic(2, 2) == pytest.approx(1 / math.sqrt(math.pi), abs=0.03)
    assert order_statistic(10, 10) == pytest.approx(1.5388, abs=0.03)
    assert order_statistic(1000, 1000) == pytest.approx(3.2414, abs=0.03) and order_statistic(1, 3) < 0


def test_one_machine_by_hand():
    """B = 256 x 2 minibatches = 512 rows: 2 blocks of 4 x 64, one an actor, on one node: no network."""
    still = replaced(RATES, block_scatter=0.0, put_bytes_per_second=1e18)
    found = predict(RUN, 256, still, ONE_NODE)
    assert found.collectors == found.actors == 2 and found.busy["network"] == 0
    handling = 1e-3 + 2e-3 + 2e-5
    assert found.collect_seconds == pytest.approx(0.01 + 0.25 + 2 * handling)
    assert found.learn_seconds == pytest.approx(2.5 * 512 * 0.99 / 3000)
    assert found.env_steps_per_second == pytest.approx(512 * 0.99 / found.seconds) and found.bottleneck == "learner"
    parts = [found.busy[name] for name in ("emulation", "inference", "bookkeeping")]
    assert sum(parts) == pytest.approx(0.25) and parts[0] == pytest.approx(256 / 2000)


def test_a_core_is_one_resource():
    """0.128 s of emulation and 0.087 of inference are 0.25 with the rest: 0.2 s of learning are no bottleneck."""
    rates = replaced(RATES, learner=2.5 * 512 * 0.99 / 0.2)
    assert predict(RUN, 256, rates, ONE_NODE).bottleneck == "emulation"
    assert predict(RUN, 256, replaced(rates, inference=1500.0), ONE_NODE).bottleneck == "inference"
    assert predict(RUN, 256, replaced(RATES, learner=2.5 * 512 * 0.99 / 0.3), ONE_NODE).bottleneck == "learner"


def test_waves_by_hand():
    """Four waves of one rollout's blocks: four times its collecting, and a quarter of its columns in memory."""
    waved, still = (
        dataclasses.replace(RUN, rollout=dataclasses.replace(RUN.rollout, waves=4)),
        replaced(RATES, block_scatter=0.0),
    )
    one, four = predict(RUN, 256, still, ONE_NODE), predict(waved, 1024, still, ONE_NODE)
    assert four.collectors == one.collectors and four.learn_seconds == pytest.approx(4 * one.learn_seconds)
    assert four.collect_seconds - 0.01 == pytest.approx(4 * (one.collect_seconds - 0.01))
    assert all(four.busy[name] == pytest.approx(4 * one.busy[name]) for name in one.busy if name != "weights")
    once = 2 * RATES.actor_bytes + 8 * RATES.column_bytes
    assert capacity.node_bytes(RUN, 256, RATES, ONE_NODE) == pytest.approx(once + 2 * 512 * 0.99 * 7300)
    assert capacity.node_bytes(waved, 1024, RATES, ONE_NODE) == pytest.approx(once + 5 * 512 * 0.99 * 7300)


def test_actors_share_cores_and_wait_for_work():
    still = replaced(RATES, block_scatter=0.0, put_bytes_per_second=1e18, copying_seconds=0.0)
    still = replaced(still, handling_seconds_per_actor=0.0)

    def collects(actors, batch=512):
        return predict(RUN, batch, still, dataclasses.replace(ONE_NODE, actors=actors)).collect_seconds - 0.01

    assert collects(1) == pytest.approx(4 * 0.2, rel=0.01), "alone on its node"
    assert collects(2) == pytest.approx(2 * 0.25, rel=0.01) and collects(4) == pytest.approx(0.5, rel=0.02)
    assert collects(9) == collects(4), "four collectors: more actors have nothing to do"
    assert capacity.batch_for_all(RUN, dataclasses.replace(ONE_NODE, actors=4)) == 512


@pytest.mark.parametrize(
    ("rates", "cluster", "bottleneck"),
    [
        (RATES, BIG, "learner"),
        (FAST, BIG, "network"),
        (replaced(FAST, handling_seconds_per_actor=1e-6), BIG, "driver"),
        (FAST, dataclasses.replace(BIG, network=1e4, nodes=2, actors=128), "emulation"),
        (replaced(FAST, inference=500.0), dataclasses.replace(BIG, network=1e4, nodes=2, actors=128), "inference"),
    ],
)
def test_what_breaks_first(rates, cluster, bottleneck):
    assert predict(RUN, 131_072, rates, cluster).bottleneck == bottleneck


def test_small_batches_on_many_nodes_wait_for_the_weights():
    assert predict(RUN, 256, FAST, BIG).bottleneck == "weights"


@settings(max_examples=50, deadline=None)
@given(
    nodes=st.integers(1, 1000),
    cpus=st.integers(1, 128),
    network=st.floats(0.1, 400),
    doublings=st.integers(0, 12),
)
def test_more_of_anything_is_never_slower(nodes, cpus, network, doublings):
    """Faster parts never lengthen a rollout; the whole lies between its longest part and their sum."""
    cluster = Cluster(nodes, cpus, 0, network, 64.0, nodes * cpus)
    found = predict(RUN, 128 << doublings, RATES, cluster)
    assert max(found.busy.values()) <= found.seconds * (1 + 1e-9)
    assert found.seconds <= sum(found.busy.values()) + found.straggler_seconds + RATES.block_seconds * 2 + 1e-9
    for better in ({"learner": 6000.0}, {"handling_seconds": 0.0}, {"put_bytes_per_second": 1e12}):
        assert predict(RUN, 128 << doublings, replaced(RATES, **better), cluster).seconds <= found.seconds
    faster = dataclasses.replace(cluster, network=2 * network)
    assert predict(RUN, 128 << doublings, RATES, faster).seconds <= found.seconds


def test_the_largest_batch_fits_and_the_next_does_not():
    most = capacity.most_that_fits(RUN, RATES, BIG)
    assert most % RUN.batch_unit == 0

    def bytes_of(batch):
        rows = 2 * batch
        on_its_way = min(rows, STORE_BLOCKS * 6400 * 4 * 64)
        return 64 * RATES.actor_bytes + (rows + on_its_way) * 0.99 * 7300 + rows / (64 * 100) * RATES.column_bytes

    assert bytes_of(most) <= 256 * 2**30 < bytes_of(most + RUN.batch_unit)
    assert capacity.most_that_fits(RUN, RATES, dataclasses.replace(BIG, memory=1.0)) == 0
    rungs = capacity.ladder(RUN, RATES, BIG)
    assert rungs[-1].batch_size == most and capacity.fed(rungs) <= most
    bound = capacity.learner_bound(rungs)
    at = [rung.batch_size for rung in rungs].index(bound)
    assert [rung.learn_seconds >= rung.collect_seconds for rung in rungs[at - 1 : at + 1]] == [False, True]


def test_a_plan_says_how_it_knows(tmp_path):
    with_gpus = dataclasses.replace(BIG, gpus=8)
    found = plan(RUN, with_gpus, RATES, {"network": "a guess"})
    assert "the rate of a GPU learner is not known" in found.warnings[0]
    assert any("have nothing to do at B = 256" in line for line in found.warnings)
    assert found.core_hours == pytest.approx(6400 * found.seconds / 3600) and found.gpu_hours == found.core_hours / 8
    assert not any("GPU" in line for line in plan(RUN, with_gpus, replaced(RATES, learner_on="stated"), {}).warnings)
    console = Console(file=io.StringIO(), width=150)
    show(found, console)
    said = console.file.getvalue()
    assert "(bottleneck)" in said and "largest batch that the cluster can feed" in said and words(found)[-1] in said
    json.dumps(to_json(found))


def test_rates_of_valid_rows_give_a_rollouts_own_seconds_and_bytes():
    """Of real blocks of CartPole, where one row in twenty is an autoreset's, in two waves."""
    run = config(CARTPOLE, {"batch": {"size": 256}, "rollout": {"waves": 2}})
    with contextlib.closing(Components(run)) as parts:
        rows = sum(block.valid.size for block in parts.blocks)
        assert 0.8 < parts.valid_share < 0.99 and rows == run.batch.rollout_env_steps / 2
        known = {"valid_share": parts.valid_share, "bytes_per_env_step": parts.bytes_per_env_step()}
        rates = replaced(RATES, learner=1000.0, **known)
        stored = sum(map(serialised_bytes, parts.blocks))
        found = predict(run, 128, rates, dataclasses.replace(BIG, nodes=2, actors=2))
        assert found.busy["network"] == pytest.approx(stored / 2 / BIG.link)
        epochs = run.batch.epochs + RATES.probe_epochs
        assert found.learn_seconds == pytest.approx(epochs * parts.env_steps / 1000.0)


@pytest.mark.cluster
def test_the_driver_is_timed_copying_every_byte():
    """A block of 84 x 84 frames takes far longer than one of numbers, and no less than memory can be written."""
    from rl_gns.distributed.rates import copying

    with contextlib.closing(Components(config(CARTPOLE))) as parts, session.start(1, 0, address="local"):
        small = parts.blocks[0]
        large = dataclasses.replace(small, frames=np.zeros((132, 4, 84, 84), np.uint8))
        seconds = copying(large)
        assert seconds > 3 * copying(small) and seconds > large.frames.nbytes / 200e9


def test_the_learner_is_timed_without_that_copy():
    """What it is given lies in one array, as a source leaves it, and is learnt from where it lies."""
    with contextlib.closing(Components(config(PONG))) as parts:
        frames = parts.learner.prepare(parts.rollout).frames.numpy()
        assert all(np.shares_memory(frames, block.frames) for block in parts.rollout)
        assert all(np.array_equal(a.frames, b.frames) for a, b in zip(parts.rollout, parts.blocks, strict=True))


@pytest.mark.cluster
def test_rates_are_measured_on_real_actors(monkeypatch):
    """All positive and of the right order; the parts of a block are no longer than the block."""
    run = config(CARTPOLE)
    monkeypatch.setattr(machine_limits, "memory_bytes", lambda: 3 << 30)
    found = measured(run, 1.0)
    assert found.memory_bytes == 3 << 30, "what a cgroup allows"
    rows = run.batch.segment_steps * run.rollout.columns_per_collector
    assert 0 < rows / found.emulation + rows / found.inference < 3 * found.block_seconds
    assert 1e-5 < found.handling_seconds < 0.1 and found.handling_seconds_per_actor < 1e-3
    assert found.block_seconds > 0 and found.block_seconds_alone > 0 and found.block_scatter > 0
    assert 1e-7 < found.copying_seconds < 0.1
    assert found.put_bytes_per_second > 1e6 and found.learner > 100 and 0.5 < found.valid_share <= 1
    assert 1e7 < found.actor_bytes < 1e9 and found.weights_bytes > 1000 and found.of == of(run)
    assert plan(run, ONE_NODE, found, {}).rollout.env_steps_per_second > 0
