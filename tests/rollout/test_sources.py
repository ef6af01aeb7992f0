"""Blocks become a rollout by id, and a short one is an error."""

import dataclasses

import numpy as np
import pytest
from tiny import CARTPOLE, config

from rl_gns.rollout.sources import LocalSource, ShortBatch, combine
from rl_gns.study.build import make_learner


@pytest.fixture(scope="module")
def blocks():
    settings = config(CARTPOLE)
    source = LocalSource(settings)
    source.publish(make_learner(settings).weights(), 7)
    return source.collect(3, 16).blocks


def test_order_of_arrival_is_forgotten(blocks):
    arrived = [blocks[2], blocks[0], blocks[1]]
    assert [b.collector_id for b in combine(arrived, 3, 7, 16).blocks] == [0, 1, 2]


def test_late_and_duplicate_blocks_are_dropped_and_counted(blocks):
    late = dataclasses.replace(blocks[1], policy_version=6)
    found = combine([late, *blocks, blocks[0]], 3, 7, 16)
    assert found.late_blocks == 2 and all(a is b for a, b in zip(found.blocks, blocks, strict=True))


def test_a_short_batch_is_an_error_that_names_who_is_missing(blocks):
    with pytest.raises(ShortBatch, match=r"collectors \[1\]"):
        combine([blocks[0], blocks[2]], 3, 7, 16)
    stump = dataclasses.replace(blocks[1], action=blocks[1].action[:8])
    with pytest.raises(ShortBatch, match=r"collectors \[1\]"):
        combine([blocks[0], stump, blocks[2]], 3, 7, 16)


def test_collectors_are_independent(blocks):
    assert not any(np.array_equal(blocks[0].frames, other.frames) for other in blocks[1:])
