"""The bench: its arithmetic by hand, its output, and that a busy machine is refused. No test asks how fast this is."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from tiny import CARTPOLE, PONG, config

from rl_gns.cli import main
from rl_gns.config_file import find, load
from rl_gns.learn.batch import Batch
from rl_gns.records import to_json
from rl_gns.rollout.collector import Collector
from rl_gns.rollout.policy import ActingPolicy
from rl_gns.study.bench import BenchResult, Spread, bench, component_limit, judged, not_standard
from rl_gns.study.bench_components import Components, serialised_bytes
from rl_gns.study.bench_profile import ON_COLLECTORS, Timers, profile
from rl_gns.study.machine_load import BUSY_SHARE, Load, share_of_others
from rl_gns.study.machine_load import load as machine_load

SMALL = {**CARTPOLE, "noise": {"every": 2, "groups": 8}}
FLAGS = ["--config", "cartpole", "--batch.size", "64", "--noise.every", "2", "--learner.threads", "1"]


def spreads(result):
    fields = [getattr(result, f.name) for f in dataclasses.fields(result)]
    return [f for f in fields if isinstance(f, Spread)] + list(result.components.values())


def by_hand(share=90.0, overhead=4.0, size=7400.0, busy=1.0):
    def one(value):
        return Spread(value, value, value, "unit")

    return BenchResult(
        env="Pong",
        alternations=3,
        rollouts=8,
        machine={},
        components={},
        component_limit=one(1000.0),
        end_to_end=one(900.0),
        share_of_limit=one(share),
        probe_overhead=one(overhead),
        probe_overhead_by_clock=one(overhead),
        bytes_per_env_step=one(size),
        busy_share=one(busy),
        judged=False,
        verdicts={},
    )


def verdicts(result):
    return [v.verdict.partition(":")[0] for v in judged(result, not_standard(load(find("pong")))).verdicts.values()]


def test_the_component_limit_by_hand():
    """1,000 env steps take 0.25 s of emulation, 0.1 s of inference and four epochs of 0.5 s: 2.35 s."""
    assert component_limit(emulation=4000, inference=10_000, learner=2000, epochs=4) == pytest.approx(1000 / 2.35)


def test_the_bounds_by_hand():
    assert verdicts(by_hand()) == ["pass", "pass", "pass"]
    assert verdicts(by_hand(share=85.0, overhead=5.0, size=7500.0)) == ["pass", "pass", "pass"]
    assert verdicts(by_hand(share=84.9)) == ["fail", "pass", "pass"]
    assert verdicts(by_hand(overhead=5.1)) == ["pass", "fail", "pass"]
    assert verdicts(by_hand(size=7501.0)) == ["pass", "pass", "fail"]


def test_neither_a_busy_machine_nor_other_sizes_are_judged():
    busy = judged(by_hand(share=10.0, busy=100 * BUSY_SHARE + 1), None)
    assert not busy.judged and {v.verdict for v in busy.verdicts.values()} == {
        "not judged: the machine is busy (11 % of the cores used by others, more than 10%)"
    }
    other = judged(by_hand(share=10.0), not_standard(config(PONG)))
    assert {v.verdict for v in other.verdicts.values()} == {"not judged: atari.frame-size is 42; the bounds are for 84"}


def test_the_shipped_pong_is_the_standard():
    assert not_standard(load(find("pong"))) is None


def test_the_share_of_others_by_hand():
    """Ten seconds of two cores: 7 s busy, 4 s of them ours, so others used 3 of 20."""
    before, after = Load(100.0, 50.0, 10.0, 2), Load(110.0, 57.0, 14.0, 2)
    assert share_of_others(before, after) == pytest.approx(0.15)
    assert share_of_others(before, dataclasses.replace(after, our_seconds=20.0)) == 0.0


def spinning(seconds):
    """The id of a process that uses a core and is no child of this one: its parent has ended."""
    spin = f"import time; end = time.time() + {seconds}\nwhile time.time() < end: pass"
    quiet = "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL"  # or it would hold our pipe open
    orphan = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {spin!r}], {quiet}).pid)"
    return int(subprocess.run([sys.executable, "-c", orphan], capture_output=True, text=True, check=True).stdout)


def test_our_own_children_are_not_others():
    """A child that spins: busy time that is ours while it lives and, up to two clock ticks of rounding, after it was
    waited for. On a busy machine it takes a while to get its 0.3 s."""
    before = alive = machine_load()
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        while alive.our_seconds - before.our_seconds < 0.3 and alive.wall_seconds - before.wall_seconds < 60:
            time.sleep(0.5)
            alive = machine_load()
    finally:
        child.kill()
        child.wait()
    assert alive.our_seconds - before.our_seconds >= 0.3
    assert machine_load().our_seconds >= alive.our_seconds - 0.02


@pytest.mark.slow
def test_a_machine_kept_busy_is_refused(capsys):
    spinner = spinning(seconds=280)
    try:
        assert main(["bench", *FLAGS, "--alternations", "1", "--json"]) == 0
        os.kill(spinner, 0)  # it was there to the end
    finally:
        os.kill(spinner, signal.SIGKILL)
    result = json.loads(capsys.readouterr().out)
    assert result["busy_share"]["high"] > 100 * BUSY_SHARE and not result["judged"]
    assert all(v["verdict"].startswith("not judged: the machine is busy (") for v in result["verdicts"].values())


def test_a_tiny_bench_has_every_number():
    result = bench(config(SMALL), alternations=2)
    for measured in spreads(result):
        assert measured.unit and measured.low <= measured.median <= measured.high
        assert all(math.isfinite(v) for v in (measured.low, measured.median, measured.high))
    assert set(result.components) == {"emulation", "inference", "learner"}
    assert result.component_limit.low > 0 and result.end_to_end.low > 0
    assert result.machine["torch"] and result.machine["threads"] == 1
    assert set(result.verdicts) == {"share_of_limit", "probe_overhead", "bytes_per_env_step"}
    assert json.loads(json.dumps(to_json(result), allow_nan=False))["rollouts"] == 2


def test_the_verb_prints_a_table(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # no cell is wrapped, however many digits stand beside it
    assert main(["bench", *FLAGS, "--alternations", "1"]) == 0
    said = capsys.readouterr().out
    assert all(words in said for words in ("emulation alone", "component limit", "not judged", "used by others"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--alternations", "0"], "--alternations: 0 is too small"),
        (["--noise.every", "0"], "no probe to measure"),
        (["--profile", "--actors", "2"], "--actors: 2 are other processes"),
        (["--config", "pogn"], "the nearest is pong"),
    ],
)
def test_a_bench_that_cannot_be_is_one_line(capsys, arguments, words):
    assert main(["bench", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and words in err


def test_bytes_by_hand():
    """42 x 42 frames: (16 + 4) of them for 16 env steps, and the rows' own 8 + 4 x 4 + 1 x 4 bytes."""
    parts = Components(config(PONG))
    try:
        (block, *_) = parts.blocks
        rows = block.action.size
        beside = 4 * block.action.shape[1] * 42 * 42 + 1000  # the stack before the block; names and shapes
        assert rows * (42 * 42 + 28) < serialised_bytes(block) < rows * (42 * 42 + 28) + beside + 100 * 20
    finally:
        parts.close()


def test_timers_count_the_inner_call_once():
    timers = Timers()
    inner = timers.timed(lambda: time.sleep(0.05), "inner")
    timers.timed(lambda: (inner(), time.sleep(0.02)), "outer")()
    assert timers.seconds["inner"] >= 0.05 and timers.seconds["outer"] >= 0.02
    assert timers.inclusive["outer"] == pytest.approx(timers.seconds["outer"] + timers.seconds["inner"])


def test_a_profile_adds_up_and_leaves_nothing_behind():
    before = ActingPolicy.infer, Collector.collect, torch.Tensor.backward, vars(Batch)["from_blocks"]
    seconds = profile(config(PONG), rollouts=1)
    assert (ActingPolicy.infer, Collector.collect, torch.Tensor.backward, vars(Batch)["from_blocks"]) == before
    assert sum(seconds.values()) == pytest.approx(2 * seconds["in all"])
    learner = {"gae", "copying and stacking", "forward", "backward", "optimizer", "publishing weights"}
    assert all(seconds[label] > 0 for label in {*ON_COLLECTORS, *learner, "in all"})


@pytest.mark.cluster
def test_bytes_are_what_ray_stores():
    from rl_gns.distributed import session

    parts = Components(config(PONG))
    with session.start(1, 0):
        import ray

        worker = ray._private.worker.global_worker
        stored = sum(worker.get_serialization_context().serialize(b).total_bytes for b in parts.blocks)
    assert parts.bytes_per_env_step() * parts.env_steps == pytest.approx(stored, rel=0.01)


@pytest.mark.cluster
def test_a_bench_on_actors():
    result = bench(config(SMALL, {"actors": 1}), alternations=1)
    assert result.machine["actors"] == 1 and result.end_to_end.low > 0
