"""A rollout's frames are held once, through collecting, probe and update, and from one rollout to the next; with
several learners more often, and what is refused for want of memory counts that."""

import contextlib
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import PONG, config

from rl_gns.config import ConfigError
from rl_gns.config_file import load, presets
from rl_gns.study import build
from rl_gns.study.build import copies_held
from rl_gns.study.machine_limits import memory_bytes

TWO_ROLLOUTS = """
import gc, json
from pathlib import Path
from tiny import PONG, config
from rl_gns.rollout.sources import LocalSource
from rl_gns.study.build import make_learner
from rl_gns.trainer import Trainer

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024

def run(waves):
    settings = config(PONG, {
        "total_env_steps": 900 * waves,
        "atari": {"frame_size": 84, "max_episode_frames": 108_000},
        "learner": {"network": "nature"},
        "batch": {"size": 512 * waves, "segment_steps": 64, "minibatches": 1},
        "rollout": {"columns_per_collector": 4, "waves": waves},
        "noise": {"every": 2, "groups": 2},
    })
    source = LocalSource(settings)
    records = list(Trainer(settings, make_learner(settings), source).run())
    source.close()
    assert len(records) == 2 and records[0].columns == 8 and records[0].probe_groups == 2
    return {"frames": waves * 8 * (64 + 4) * 84 * 84, "peak": peak()}

small = run(1)
gc.collect()
print(json.dumps([small, run(12)]))
"""


THROUGH_LEARNERS = """
import dataclasses, json, os, sys
sys.path.append("../scripts")
from peak_memory import descendants, proportional_kib
from tiny import PONG
from rl_gns.config import RunConfig
from rl_gns.config_file import from_table
from rl_gns.rollout.sources import LocalSource
from rl_gns.study.build import checked, learners, make_learner

def held():
    return 1024 * sum(proportional_kib(pid) for pid in descendants(os.getpid()))

def rollout(waves):
    return [dataclasses.replace(b, frames=b.frames.copy(), wave=w) for w in range(waves) for b in blocks]

table = {**PONG, "learners": 2, "noise": {"groups": 2, "across_env_steps": 0}, "learner": {"network": "nature"}}
table["atari"] = {"frame_size": 84}
table["batch"] = {"size": 24 * 512, "segment_steps": 64, "minibatches": 1}
table["rollout"] = {"columns_per_collector": 4, "scatter_env_steps": 0, "burn_in_env_steps": 0, "waves": 24}
settings = checked(from_table(table, RunConfig()), several_learners=True)
one_wave = dataclasses.replace(settings, rollout=dataclasses.replace(settings.rollout, waves=1))
one, source = make_learner(settings), LocalSource(one_wave)
source.publish(one.weights(), 0)
blocks = source.collect(2, 64).blocks
with learners(settings, one) as group:
    group.prepare(rollout(1))
    before, large = held(), rollout(24)
    group.prepare(large)
    print(json.dumps([sum(b.frames.nbytes for b in large), held() - before]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux's counter of the peak")
def test_the_frames_of_a_rollout_are_held_once():
    """Two rollouts of 8 columns x T = 64 in 1 wave, then in 12: 4 and 46 MB of 84 x 84 frames. The peak of the process
    grows by the difference, and a little for blocks in flight. A second copy would make it 2 (2.4 with the last
    rollout kept)."""
    done = subprocess.run(
        [sys.executable, "-c", TWO_ROLLOUTS], capture_output=True, text=True, cwd=Path(__file__).parent, check=True
    )
    small, large = json.loads(done.stdout.splitlines()[-1])
    copies = (large["peak"] - small["peak"]) / (large["frames"] - small["frames"])
    assert 0.9 < copies < 1.7, (small, large)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux's proportional set sizes")
def test_several_learners_hold_the_frames_as_often_as_is_counted():
    """92 MB of frames through two learners: what driver, object store (its pages stay) and learners hold after. It is a
    most: half a copy less where the first learner had let go its share before the second one's was put."""
    done = subprocess.run(
        [sys.executable, "-c", THROUGH_LEARNERS], capture_output=True, text=True, cwd=Path(__file__).parent, check=True
    )
    frames, grown = json.loads(done.stdout.splitlines()[-1])
    assert copies_held(2) - 0.5 - 0.2 < grown / frames < copies_held(2) + 0.4, (frames, grown)


@pytest.mark.parametrize(("n_learners", "gib", "fits"), [(1, 12, True), (1, 9, False), (2, 23.5, False), (2, 30, True)])
def test_a_million_env_steps_fit_where_they_were_seen_to(monkeypatch, n_learners, gib, fits):
    """One learner took 10.05 GiB (docs/results/2026-11-23-large-batch); two hold 2.5 copies more, of 7.1 GiB each."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(build, "memory_bytes", lambda: int(gib * 2**30))
    large = load(presets()["large_batch"])
    wanted = dataclasses.replace(large, learners=n_learners, noise=dataclasses.replace(large.noise, across_env_steps=0))
    if fits:
        build.checked(wanted, several_learners=True)
        return
    held = " (3.5 copies with 2 learners)" if n_learners == 2 else ""
    words = f"makes rollouts of 7 GiB{held} on 1,024 columns of 1 GiB beside"
    with pytest.raises(ConfigError, match=f"--batch.size: 1048576 {re.escape(words)} .* this machine allows {gib}"):
        build.checked(wanted, several_learners=True)


@pytest.mark.parametrize(("address", "fits"), [(None, False), ("10.0.0.1:6379", True)], ids=["here", "cluster"])
def test_a_trainer_on_another_node_holds_no_rollout_here(monkeypatch, address, fits):
    """With rollout actors on a cluster that the user names: the driver is a program alone. Without, it trains here."""
    monkeypatch.setattr(build.session, "named", lambda: address)
    monkeypatch.setattr(build, "memory_bytes", lambda: 2 << 30)
    with_actors = dataclasses.replace(load(presets()["large_batch"]), actors=4)
    for wanted, fits_so in ((with_actors, fits), (dataclasses.replace(with_actors, actors=0), False)):
        with contextlib.nullcontext() if fits_so else pytest.raises(ConfigError, match=r"--batch\.size: 1048576 makes"):
            build.checked(wanted)


@pytest.mark.parametrize(
    ("changes", "flag"),
    [({"actors": 64}, "--actors: 64"), ({"learners": 32, "actors": 4}, "--learners: 32")],
)
def test_programs_that_do_not_fit_are_named_by_their_number(monkeypatch, changes, flag):
    """And not by a batch that would fit."""
    monkeypatch.setattr(build.session, "named", lambda: None)
    monkeypatch.setattr(build, "memory_bytes", lambda: 10 << 30)
    changed = {"noise": {"groups": 32, "across_env_steps": 0}, "batch": {**PONG["batch"], "size": 256}}
    small = config(PONG, changed)
    with pytest.raises(ConfigError, match=rf"^{flag} makes [0-9.]+ GiB of programs beside rollouts of 0 GiB"):
        build.checked(dataclasses.replace(small, **changes), several_learners=True)


def test_the_memory_of_a_cgroup_and_of_those_above_it(tmp_path):
    """Both versions' files, as the kernel writes them; the machine has more than these, and less than no limit."""
    membership, none = tmp_path / "membership", tmp_path / "none"
    two, one = tmp_path / "two", tmp_path / "one"
    (two / "a" / "b").mkdir(parents=True)
    (two / "a" / "b" / "memory.max").write_text("max\n")
    membership.write_text("0::/a/b\n")
    everything = memory_bytes(two, none)
    assert everything > 1 << 28 and memory_bytes(two, membership) == everything
    (two / "a" / "memory.max").write_text("100000000\n")
    assert memory_bytes(two, membership) == 100_000_000
    (one / "memory" / "c").mkdir(parents=True)
    (one / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    membership.write_text("3:memory:/c\n2:cpu,cpuacct:/c\n")
    assert memory_bytes(one, membership) == everything
    (one / "memory" / "c" / "memory.limit_in_bytes").write_text("50000000\n")
    assert memory_bytes(one, membership) == 50_000_000
