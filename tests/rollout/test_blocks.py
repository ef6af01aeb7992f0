"""Every block is looked at: real ones of every kind of world pass, and each kind of poison is named."""

import dataclasses
import re
import time

import numpy as np
import pytest
from tiny import BANDIT, CARTPOLE, PONG, config

from rl_gns.rollout.blocks import Asked, layout, wrong
from rl_gns.rollout.collector import Collector
from rl_gns.rollout.generations import (
    HELD_OUT_ON,
    MEASURED_ON,
    MOVED_ON,
    REPLAYED_ELSE_ON,
    REPLAYED_ON,
    Generations,
    NoGenerationLeft,
)
from rl_gns.rollout.sources import BadBlock, LocalSource
from rl_gns.study.build import make_learner

LIVES = {**PONG, "env": "Breakout", "atari": {"frame_size": 42, "max_episode_frames": 400, "life_loss_terminal": True}}
WORLDS = {
    "cartpole": CARTPOLE,
    "bandit": BANDIT,
    "episodic": {**BANDIT, "env": "EpisodicBandit"},
    "chain": {**BANDIT, "env": "Chain"},
    "pong": PONG,
    "lives": LIVES,
}


def collected(settings, n_blocks=1, steps=16):
    made = Collector(settings, 2, 1)
    made.load(make_learner(settings).weights(), 7)
    return [made.collect(steps) for _ in range(n_blocks)]


@pytest.mark.parametrize("world", WORLDS)
def test_real_blocks_pass_over_whole_episodes(world):
    settings = config(WORLDS[world])
    blocks = collected(settings, 3, 128)
    assert [wrong(b, Asked(2, 1, 7, 128), layout(settings)) for b in blocks] == [None] * 3
    assert world == "bandit" or any((~b.valid).any() for b in blocks), "resets were among them"


def poisoned(block, **changes):
    return dataclasses.replace(block, **changes)


def with_one(array, value):
    array = array.copy()
    array.flat[array.size // 2] = value
    return array


POISON = [
    (lambda b: poisoned(b, logp=with_one(b.logp, np.nan)), "logp has 1 values that are not finite"),
    (lambda b: poisoned(b, value=with_one(b.value, np.inf)), "value has 1 values that are not finite"),
    (lambda b: poisoned(b, frames=with_one(b.frames, np.nan)), "frames has 1 values that are not finite"),
    (lambda b: poisoned(b, last_value=with_one(b.last_value, -np.inf)), "last_value has 1 values"),
    (lambda b: poisoned(b, control=with_one(b.control, np.nan)), "control has 1 values that are not finite"),
    (lambda b: poisoned(b, control=b.control[..., :3]), r"control is float32 \(16, 4, 3\) instead of"),
    (lambda b: poisoned(b, action=b.action[:8]), r"action is int64 \(8, 4\) instead of int64 \(16, 4\)"),
    (lambda b: poisoned(b, frames=b.frames[:, :3]), r"frames is float32 \(17, 3, 4\) instead of float32 \(17, 4, 4\)"),
    (lambda b: poisoned(b, reward=b.reward.astype(np.float64)), "reward is float64"),
    (lambda b: poisoned(b, valid=None), "valid is NoneType instead of bool"),
    (lambda b: poisoned(b, policy_version=6), "policy_version 6 instead of 7"),
    (lambda b: poisoned(b, collector_id=0), "collector_id 0 instead of 2"),
    (lambda b: poisoned(b, generation=0), "generation 0 instead of 1"),
    (lambda b: poisoned(b, wave=1), "wave 1 instead of 0"),
    (lambda b: poisoned(b, action=with_one(b.action, 2)), "actions 0 to 2, where 0 to 1 exist"),
    (lambda b: poisoned(b, logp=with_one(b.logp, 0.5)), "a log-probability of 0.5"),
    (lambda b: poisoned(b, valid=with_one(b.valid, not b.valid.flat[32])), "contradict each other"),
    (lambda b: poisoned(b, terminated=b.valid, truncated=b.valid), "both terminated and truncated"),
    (lambda b: "nothing", "a str instead of a block"),
]


@pytest.mark.parametrize(("poison", "words"), POISON, ids=[words for _, words in POISON])
def test_each_poison_is_named(poison, words):
    settings = config(CARTPOLE)
    (block,) = collected(settings)
    assert wrong(block, Asked(2, 1, 7, 16), layout(settings)) is None
    assert re.search(words, wrong(poison(block), Asked(2, 1, 7, 16), layout(settings)))


def test_a_look_costs_next_to_nothing():
    """At most 1 % of the collecting that it guards, on a small world and a large one (measured: 0.06 and 0.01 %)."""
    for base in (CARTPOLE, PONG):
        settings, made = config(base), Collector(config(base), 0)
        made.load(make_learner(settings).weights(), 7)
        start = time.perf_counter()
        block = made.collect(128)
        collecting, shape = time.perf_counter() - start, layout(settings)
        looks = []
        for _ in range(9):
            start = time.perf_counter()
            assert wrong(block, Asked(0, 0, 7, 128), shape) is None
            looks.append(time.perf_counter() - start)
        assert sorted(looks)[4] < 0.01 * collecting


def test_a_poisoned_block_of_this_process_is_refused(monkeypatch):
    settings = config(CARTPOLE)
    source = LocalSource(settings)
    source.publish(make_learner(settings).weights(), 0)
    source.collect(2, 16)
    healthy = Collector.collect
    monkeypatch.setattr(Collector, "collect", lambda self, *what: POISON[0][0](healthy(self, *what)))
    with pytest.raises(BadBlock, match="collector 0 returned logp has 1 values that are not finite"):
        source.collect(2, 16)


def test_generations_are_each_collectors_own_and_end_before_they_repeat():
    generations = Generations()
    generations.restart(None, 3)
    assert generations.advance(5) == 4 and (generations.of(5), generations.of(4)) == (4, 3)
    generations.restart([{"generation": 0}, {"generation": 2}], 9)
    assert [generations.of(c) for c in range(3)] == [0, 2, 0]
    for _ in range(253):
        generations.advance(1)
    with pytest.raises(NoGenerationLeft, match="collector 1 was seeded anew 255 times"):
        generations.advance(1)
    generations = Generations()
    generations.restart(None, MEASURED_ON)
    assert generations.advance(0) == MOVED_ON and generations.advance(0) == MOVED_ON + 1, "the other half"
    with pytest.raises(NoGenerationLeft):
        generations.restart(None, 512)


def test_training_that_seeds_all_anew_stops_before_the_generations_of_measurements():
    """As exact resume does at each checkpoint; faults may have moved some collectors further."""
    generations = Generations()
    for generation in range(1, MEASURED_ON):
        generations.restart(None, generation)
    with pytest.raises(NoGenerationLeft, match="the run was seeded anew 255 times"):
        generations.restart(None, MEASURED_ON)
    faulty = Generations()
    faulty.restart([{"generation": 254}], 0)
    faulty.advance(0)
    with pytest.raises(NoGenerationLeft):
        faulty.restart(None, MEASURED_ON)


def test_a_collector_that_moves_in_a_measurement_plays_no_held_out_column():
    """Its actor's death must not make it the collector of that number whose columns judge the measurement."""
    settings = config(CARTPOLE)
    generations = Generations()
    generations.restart(None, MEASURED_ON)
    moved = [generations.advance(0) for _ in range(3)]
    weights = make_learner(settings).weights()

    def first_block(generation):
        collector = Collector(settings, 0, generation)
        collector.load(weights, 0)
        return collector.collect(16)

    for start in (HELD_OUT_ON, REPLAYED_ON, REPLAYED_ELSE_ON):
        others = [first_block(generation).frames for generation in moved]
        assert not any(np.array_equal(first_block(start).frames, frames) for frames in others)
