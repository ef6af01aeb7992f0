"""Blocks become a rollout by id, and a short one is an error."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny import CARTPOLE, config

from rl_gns.learn.batch import Batch
from rl_gns.rollout.assembly import Assembly, ShortBatch
from rl_gns.rollout.sources import LocalSource
from rl_gns.segments import SegmentBlock
from rl_gns.study.build import make_learner


@pytest.fixture(scope="module")
def blocks():
    settings = config(CARTPOLE)
    source = LocalSource(settings)
    source.publish(make_learner(settings).weights(), 7)
    return source.collect(3, 16).blocks


def combine(arrived):
    """What policy version 7 of 3 collectors and T = 16 makes of those blocks."""
    rollout = Assembly(3, 1, 7, 16)
    for block in arrived:
        rollout.put(block)
    return rollout.collected()


def test_order_of_arrival_is_forgotten(blocks):
    arrived = [blocks[2], blocks[0], blocks[1]]
    assert [b.collector_id for b in combine(arrived).blocks] == [0, 1, 2]


def test_late_and_duplicate_blocks_are_dropped_and_counted(blocks):
    late = dataclasses.replace(blocks[1], policy_version=6)
    fourth = dataclasses.replace(blocks[1], collector_id=3)
    another = dataclasses.replace(blocks[0], frames=blocks[1].frames)
    found = combine([late, *blocks, another, fourth])
    assert found.late_blocks == 3
    for a, b in zip(found.blocks, blocks, strict=True):
        for field in dataclasses.fields(SegmentBlock):
            assert np.array_equal(getattr(a, field.name), getattr(b, field.name)), field.name


def test_nothing_of_a_block_is_held(blocks):
    """So that a block in shared memory is freed when it has been copied."""
    found = combine(blocks).blocks
    for a, b in zip(found, blocks, strict=True):
        for field in dataclasses.fields(SegmentBlock):
            mine, theirs = getattr(a, field.name), getattr(b, field.name)
            assert not isinstance(mine, np.ndarray) or not np.shares_memory(mine, theirs), field.name


def test_a_batch_takes_over_the_frames_that_lie_side_by_side(blocks):
    """One copy; and those of any other blocks are put side by side, with the same bits."""
    apart = [dataclasses.replace(b, frames=b.frames.copy()) for b in blocks]
    whole, copied, turned = (Batch.from_blocks(b, 0.99, 0.95, "cpu") for b in (blocks, apart, [*blocks[1:], blocks[0]]))
    assert np.shares_memory(whole.frames.numpy(), blocks[0].frames)
    assert torch.equal(whole.frames, copied.frames) and not np.shares_memory(copied.frames.numpy(), apart[0].frames)
    assert not torch.equal(whole.frames, turned.frames)


def test_a_short_batch_is_an_error_that_names_who_is_missing(blocks):
    with pytest.raises(ShortBatch, match=r"collectors \[1\]"):
        combine([blocks[0], blocks[2]])
    stump = dataclasses.replace(blocks[1], action=blocks[1].action[:8])
    with pytest.raises(ShortBatch, match=r"collectors \[1\]"):
        combine([blocks[0], stump, blocks[2]])


def test_collectors_are_independent(blocks):
    assert not any(np.array_equal(blocks[0].frames, other.frames) for other in blocks[1:])
