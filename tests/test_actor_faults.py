"""Rollout actors that are killed, stopped or poisoned: real processes, real signals, and not one wrong row."""

import os
import re
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tiny import CARTPOLE, PONG, config, fingerprint, numbers

from rl_gns.distributed import session, watch
from rl_gns.rollout.collector import Collector
from rl_gns.rollout.sources import LocalSource
from rl_gns.rundir import RunDir
from rl_gns.study.build import make_learner, object_store_bytes
from rl_gns.trainer import Trainer

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]
SETTINGS = config(CARTPOLE)
LONG = 4000  # env steps of a column: half a second for a collector, so that a signal falls into the middle of a block
FIELDS = ("frames", "action", "logp", "value", "last_value", "reward", "raw_reward", "valid", "episode_returns")


@pytest.fixture(scope="module", autouse=True)
def ray_session():
    with session.start(2, object_store_bytes(config(PONG))) as started:
        yield started


@pytest.fixture
def source():
    """Two actors; collectors 0 and 2 on the first, 1 and 3 on the second."""
    from rl_gns.distributed.rollout_actors import RaySource

    made = RaySource(SETTINGS, 2)
    made.publish(make_learner(SETTINGS).weights(), 0)
    yield made
    made.close()


def pid(place):
    return int(re.search(r"pid (\d+)", place.where)[1])


def alive(process_id):
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def gone(process_id, seconds=30.0):
    deadline = time.monotonic() + seconds
    while alive(process_id) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(process_id)


class Striker(threading.Thread):
    """Sends a signal to the actors of some places once their calls have run for a while, and notes what it hit."""

    def __init__(self, source, places, number):
        super().__init__(daemon=True)
        self._source, self._indices, self._number = source, places, number
        self.hit, self.unfinished = [], []

    def run(self):
        import ray

        places = [self._source._crew._places[k] for k in self._indices]
        while not all(place.calls for place in places):
            time.sleep(0.01)
        time.sleep(0.1)
        for place in places:
            call = next(iter(place.calls))
            self.unfinished.append(not ray.wait([call], timeout=0)[0])
            self.hit.append(pid(place))
            os.kill(self.hit[-1], self._number)


def same(a, b):
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in FIELDS)


def expected(collector_id, generation, steps, n_blocks=1):
    """The last of the collector's blocks under the first policy, made in this process."""
    made = Collector(SETTINGS, collector_id, generation)
    made.load(make_learner(SETTINGS).weights(), 0)
    return [made.collect(steps) for _ in range(n_blocks)][-1]


def test_an_actor_killed_in_the_middle_of_a_block_is_replaced_and_no_row_is_wrong(source):
    striker = Striker(source, [0], signal.SIGKILL)
    striker.start()
    found = source.collect(4, LONG)
    striker.join()
    assert striker.unfinished == [True], "the block was not finished when the signal was sent"
    assert gone(striker.hit[0]) and pid(source._crew._places[0]) != striker.hit[0]
    assert [b.generation for b in found.blocks] == [1, 0, 1, 0]
    assert all(same(b, expected(b.collector_id, b.generation, LONG)) for b in found.blocks)
    (fault,) = found.faults
    assert (fault.what, fault.collectors, fault.generations) == ("died", [0, 2], [1, 1])
    assert f"pid {striker.hit[0]}" in fault.reason and found.replaced_actors == 1 and found.late_blocks == 0
    assert source.collect(4, 16).faults == ()


def test_all_actors_killed_at_once_are_replaced(source):
    striker = Striker(source, [0, 1], signal.SIGKILL)
    striker.start()
    found = source.collect(4, LONG)
    striker.join()
    assert striker.unfinished[0] and all(gone(hit) for hit in striker.hit)
    assert [b.generation for b in found.blocks] == [1, 1, 1, 1] and found.replaced_actors == 2
    assert all(same(b, expected(b.collector_id, 1, LONG)) for b in found.blocks)


def test_a_stalled_actor_is_named_in_time_killed_and_replaced(source, monkeypatch, caplog):
    for _ in range(2):  # the second block of a collector is an ordinary one: its time is known from here on
        source.collect(4, 16)
    monkeypatch.setattr(source._crew._patience, "_floor", 4.0)
    stopped = pid(source._crew._places[1])
    os.kill(stopped, signal.SIGSTOP)
    start = time.monotonic()
    found = source.collect(4, 16)
    seconds = time.monotonic() - start
    (fault,) = found.faults
    assert (fault.what, fault.collectors, fault.generations) == ("stalled", [1, 3], [1, 1])
    assert f"pid {stopped}" in fault.reason and "gave no block of collector 1" in fault.reason
    named = next(r for r in caplog.records if r.message.startswith("waiting for collector 1"))
    assert f"pid {stopped}" in named.message and 2 <= float(re.search(r"silent for (\d+) s", named.message)[1]) <= 4
    assert 4 <= seconds < 60 and gone(stopped)
    assert same(found.blocks[1], expected(1, 1, 16)) and same(found.blocks[0], expected(0, 0, 16, 3))


def stopped_for(place, seconds):
    """Its process stands still for so long, and goes on."""
    process_id = pid(place)
    os.kill(process_id, signal.SIGSTOP)
    threading.Timer(seconds, os.kill, (process_id, signal.SIGCONT)).start()


def test_checkpoints_do_not_shorten_what_a_block_may_take(source, monkeypatch):
    """Blocks take half a second and more; then 80 states come within milliseconds, and a healthy actor pauses."""
    monkeypatch.setattr(source._crew._patience, "_floor", 1.0)
    for _ in range(2):
        source.collect(4, LONG)
    for _ in range(20):
        assert len(source.state()) == 4
    stopped_for(source._crew._places[1], 4.0)
    start = time.monotonic()
    found = source.collect(4, LONG)
    assert time.monotonic() - start > 3 and found.faults == (), "within 20 times what a block takes"
    assert [b.generation for b in found.blocks] == [0, 0, 0, 0]


@pytest.mark.parametrize("saved", [False, True], ids=["anew", "from a state"])
def test_the_first_block_after_a_restore_has_a_first_ones_patience(source, monkeypatch, saved):
    for _ in range(2):
        source.collect(4, 16)
    source.restore(source.state() if saved else None, generation=1)
    monkeypatch.setattr(source._crew._patience, "_floor", 1.0)
    monkeypatch.setattr(watch, "MEDIANS", 1.0)
    stopped_for(source._crew._places[0], 4.0)
    start = time.monotonic()
    found = source.collect(4, 16)
    assert time.monotonic() - start > 3 and found.faults == ()
    assert [b.generation for b in found.blocks] == [0 if saved else 1] * 4
    assert all(same(b, expected(b.collector_id, b.generation, 16, 3 if saved else 1)) for b in found.blocks)


def test_states_are_of_the_generation_that_goes_on(source, monkeypatch):
    """The actor dies once collector 0's state is here, and before that of collector 2 is: both are seeded anew."""
    source.collect(4, 16)
    crew, doomed = source._crew, pid(source._crew._places[0])
    take = crew._take

    def strike(place, *rest):
        take(place, *rest)
        if alive(doomed) and pid(place) == doomed:
            os.kill(doomed, signal.SIGKILL)

    monkeypatch.setattr(crew, "_in_flight", 1)
    monkeypatch.setattr(crew, "_take", strike)
    assert [state["generation"] for state in source.state()] == [1, 0, 1, 0]
    found = source.collect(4, 16)
    assert [(f.what, f.collectors) for f in found.faults] == [("died", [0, 2])]
    assert [b.generation for b in found.blocks] == [1, 0, 1, 0] and same(found.blocks[0], expected(0, 1, 16))


def poisoned_actor(order):
    """The actor class, which poisons collector 1's block as long as the file `order` says how."""
    import ray

    from rl_gns.distributed.rollout_actors import CollectorHost

    class Poisoned(CollectorHost):
        def collect(self, collector_id, *rest):
            import dataclasses

            block = super().collect(collector_id, *rest)
            if collector_id != 1 or not order.exists():
                return block
            how = order.read_text()
            if how != "nan for ever":
                order.unlink()
            changes = {
                "nan": {"value": block.value * np.float32(np.nan)},
                "shape": {"reward": block.reward[:-1]},
                "version": {"policy_version": block.policy_version - 1},
            }
            return dataclasses.replace(block, **changes[how.split()[0]])

    return ray.remote(num_cpus=1, max_restarts=0)(Poisoned)


def test_poisoned_blocks_are_refused_and_their_actor_replaced(monkeypatch, tmp_path):
    from rl_gns.distributed import crew, rollout_actors

    order = tmp_path / "poison"
    monkeypatch.setattr(rollout_actors, "RolloutActor", poisoned_actor(order))
    source = rollout_actors.RaySource(SETTINGS, 2)
    source.publish(make_learner(SETTINGS).weights(), 0)
    source.collect(4, 16)
    said = {
        "nan": "value has 64 values that are not finite",
        "shape": "reward is float32 (15, 4)",
        "version": "-1 inst",
    }
    for generation, (how, words) in enumerate(said.items(), 1):
        order.write_text(how)
        before = [pid(place) for place in source._crew._places]
        found = source.collect(4, 16)
        after = [pid(place) for place in source._crew._places]
        assert not order.exists(), "the poison was given"
        (fault,) = found.faults
        assert (fault.what, fault.generations, words in fault.reason) == ("refused", [generation] * 2, True)
        assert (found.refused_blocks, found.replaced_actors) == (1, 1)
        assert found.late_blocks <= 1, "the other block of the killed actor may have been on its way"
        assert before[0] == after[0] and before[1] != after[1] and gone(before[1])
        assert same(found.blocks[1], expected(1, generation, 16))
        assert same(found.blocks[0], expected(0, 0, 16, generation + 1))
    order.write_text("nan for ever")
    with pytest.raises(crew.ActorsFail) as caught:
        source.collect(4, 16)
    assert "collector 1: its actor was replaced 3 times in a row" in str(caught.value)
    assert "not finite" in str(caught.value) and "\n" not in str(caught.value)
    source.close()


def test_an_error_of_our_own_is_no_fault_of_the_actor(monkeypatch):
    import ray

    from rl_gns.distributed import rollout_actors

    class Refuses(rollout_actors.CollectorHost):
        def __init__(self, config):
            raise ValueError("no such game")

    monkeypatch.setattr(rollout_actors, "RolloutActor", ray.remote(num_cpus=1)(Refuses))
    source = rollout_actors.RaySource(SETTINGS, 1)
    with pytest.raises(ray.exceptions.RayError) as caught:
        source.collect(4, 16)
    assert session.reason(caught.value) == "ValueError: no such game" and source._crew.faults() == []
    source.close()


def test_a_run_whose_actors_die_loses_no_update_and_no_row(source, tmp_path):
    """Actors die between rollouts, in them and before a checkpoint, which is then restored elsewhere, to the bit."""
    run = Trainer(SETTINGS, make_learner(SETTINGS), source)
    loop = run.run()
    records = [next(loop)]
    os.kill(pid(source._crew._places[1]), signal.SIGKILL)
    records.append(next(loop))
    assert records[-1].replaced_actors == 1 and records[-1].generation == 1
    killed = pid(source._crew._places[0])
    os.kill(killed, signal.SIGKILL)
    assert gone(killed)
    RunDir(tmp_path).save_checkpoint(0, run.state())
    state = RunDir(tmp_path).load_checkpoint()
    assert [s["generation"] for s in state["source"]] == [1, 1, 1, 1]
    records += list(loop)
    assert records[2].replaced_actors == 1 and records[2].burn_in_env_steps > 0, "met at the checkpoint, told here"
    block, seeding = 4 * 16, 4 * 10
    costs = [fault.cost_env_steps for r in records for fault in r.faults]
    assert costs == [block + 2 * seeding, 2 * seeding], "with a state no block is lost"
    for i, record in enumerate(records):
        assert record.update == i and record.requested_env_steps == record.collected_env_steps == 256
    elsewhere = Trainer(SETTINGS, make_learner(SETTINGS), LocalSource(SETTINGS))
    elsewhere.restore(state)
    rest = list(elsewhere.run())
    books = ("faults", "replaced_actors")
    bare = [{k: v for k, v in numbers(r).items() if k not in books} for r in records]
    assert [{k: v for k, v in numbers(r).items() if k not in books} for r in rest] == bare[2:]
    assert fingerprint(elsewhere.learner) == fingerprint(run.learner)
