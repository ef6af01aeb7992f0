"""From blocks to group gradients: stacks, masks, groups, and the sums that training takes."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny import CARTPOLE, PONG, config, fingerprint, replaced

from rl_gns.learn.batch import Batch
from rl_gns.learn.gradients import column_groups, grams, group_gradients, rows_by_column
from rl_gns.rollout.sources import LocalSource
from rl_gns.study.build import make_learner


@pytest.fixture(scope="module", params=[CARTPOLE, PONG], ids=["cartpole", "pong"])
def rollout(request):
    """(config, learner, blocks) of a real rollout with autoreset rows in it."""
    settings = config(request.param)
    learner, source = make_learner(settings), LocalSource(settings)
    source.publish(learner.weights(), 0)
    for _ in range(10):
        blocks = source.collect(4, 16).blocks
        if any((~b.valid).any() for b in blocks):
            return settings, learner, blocks
    raise AssertionError("the test needs autoreset rows")


def with_garbage_in_masked_rows(block):
    masked = ~block.valid
    changes = {}
    for name, garbage in (("logp", 5.0), ("reward", 1e3), ("action", 0)):
        values = getattr(block, name).copy()
        values[masked] = garbage
        changes[name] = values
    return dataclasses.replace(block, **changes)


def test_masked_rows_touch_neither_probe_nor_update(rollout):
    settings, _, blocks = rollout
    prints, moments = [], []
    for these in (blocks, [with_garbage_in_masked_rows(b) for b in blocks]):
        learner = make_learner(settings)
        batch = learner.prepare(these)
        moments.append(learner.probe(batch))
        learner.update(batch, 1e-3)
        prints.append(fingerprint(learner))
    assert prints[0] == prints[1]
    for part in ("policy", "rest", "total"):
        assert (moments[0].gram[part] == moments[1].gram[part]).all()


def test_initial_weights_do_not_depend_on_the_threads():
    before, prints = torch.get_num_threads(), set()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        prints.add(fingerprint(make_learner(config(CARTPOLE))))
    torch.set_num_threads(before)
    assert len(prints) == 1


def test_an_unmasked_autoreset_row_would_be_felt(rollout):
    """Negative control of the mask."""
    _, learner, blocks = rollout
    masked = learner.probe(learner.prepare(blocks))
    open_ = learner.probe(learner.prepare([dataclasses.replace(b, valid=np.ones_like(b.valid)) for b in blocks]))
    assert masked.env_steps.sum() < open_.env_steps.sum()
    assert not np.allclose(masked.gram["total"], open_.gram["total"], rtol=1e-3)


def test_group_means_add_up_to_the_training_passes_gradient(rollout):
    """Two derivations: sum (N_k/N) g_k from the probe, and the gradient of the whole rollout's mean loss as the
    update accumulates it."""
    settings, learner, blocks = rollout
    batch = learner.prepare(blocks)
    found = group_gradients(learner.network, batch, rows_by_column(batch, 8), settings.learner, "fp32")
    share = torch.from_numpy(found.env_steps / found.env_steps.sum()).float()
    learner.optimizer.zero_grad()
    learner.precision = "fp32"
    index = batch.valid_rows()
    learner._accumulate(batch.rows(index), len(index))
    direct = torch.cat([p.grad.reshape(-1) for p in learner.network.parameters()])
    torch.testing.assert_close(share @ (found.policy + found.rest), direct, rtol=1e-3, atol=1e-6)
    gram = grams(found)
    np.testing.assert_allclose(
        gram["total"],
        ((found.policy + found.rest).double() @ (found.policy + found.rest).double().T).numpy(),
        rtol=1e-4,
    )


def test_bf16_moves_the_policy_part_by_little(rollout):
    """The same rows in both precisions: each group's gradient within 2 % of the groups' rms float32 norm.

    The rest is not compared: without a reward its residuals are the rounding of the collecting values themselves.
    """
    settings, learner, blocks = rollout
    batch = learner.prepare(blocks)
    full, half = (
        group_gradients(learner.network, batch, rows_by_column(batch, 8), settings.learner, p) for p in ("fp32", "bf16")
    )
    error = (full.policy - half.policy).norm(dim=1) / full.policy.norm(dim=1).square().mean().sqrt()
    assert 0 < float(error.max()) < 0.02
    assert half.policy.dtype == half.rest.dtype == torch.float32


def test_micro_batches_change_rounding_only(rollout):
    settings, learner, blocks = rollout
    batch = learner.prepare(blocks)
    small = dataclasses.replace(settings.learner, micro_batch=5)
    a = group_gradients(learner.network, batch, rows_by_column(batch, 8), settings.learner, "fp32")
    b = group_gradients(learner.network, batch, rows_by_column(batch, 8), small, "fp32")
    torch.testing.assert_close(a.policy, b.policy, rtol=1e-3, atol=1e-6)


def test_the_probe_is_on_policy(rollout):
    _, learner, blocks = rollout
    moments = learner.probe(learner.prepare(blocks))
    assert moments.max_ratio_error < 1e-4 and not moments.off_policy
    other = make_learner(replaced(learner.config, seed=9))
    with torch.no_grad():
        other.network.policy_head.weight.mul_(50)
    assert other.probe(other.prepare(blocks)).off_policy, "negative control: other weights collected this"


def test_bf16_moments_are_float64_and_near_fp32(rollout):
    settings, learner, blocks = rollout
    batch = learner.prepare(blocks)
    full = grams(group_gradients(learner.network, batch, rows_by_column(batch, 8), settings.learner, "fp32"))
    half = grams(group_gradients(learner.network, batch, rows_by_column(batch, 8), settings.learner, "bf16"))
    assert half["policy"].dtype == np.float64
    assert np.trace(half["policy"]) == pytest.approx(np.trace(full["policy"]), rel=0.1)


@pytest.mark.gpu
def test_group_gradients_on_cuda_equal_the_cpus(rollout):
    settings, _, blocks = rollout
    found = {}
    for device in ("cpu", "cuda"):
        learner = make_learner(replaced(settings, learner=dataclasses.replace(settings.learner, device=device)))
        assert learner.device == device
        found[device] = learner.probe(learner.prepare(blocks))
    np.testing.assert_allclose(found["cuda"].gram["total"], found["cpu"].gram["total"], rtol=1e-2)


def test_groups_are_whole_columns_and_use_them_all():
    groups = column_groups(10, 4)
    assert [len(g) for g in groups] == [3, 3, 2, 2]
    assert sorted(np.concatenate(groups).tolist()) == list(range(10))
    assert len(column_groups(3, 8)) == 3


def test_columns_that_join_move_no_other_to_another_group():
    """Sums of groups over rollouts stay independent while the batch size grows by columns."""
    before, after = column_groups(24, 16), column_groups(64, 16)
    assert all(set(old) <= set(new) for old, new in zip(before, after, strict=True))
    assert len({len(g) for g in after}) == 1


def test_blocks_are_laid_out_by_collector(rollout):
    settings, _, blocks = rollout
    batch = Batch.from_blocks(blocks, 0.99, 0.95, "cpu")
    per = settings.rollout.columns_per_collector
    for c, block in enumerate(blocks):
        rows = batch.rows_of_columns(np.arange(c * per, (c + 1) * per))
        assert batch.rows(rows).action.tolist() == block.action[block.valid].tolist()
        assert len(rows) == block.valid.sum()
