"""Collectors: what they store is what the agent saw, and their streams are their own."""

import numpy as np
import pytest
import torch
from tiny import CARTPOLE, PONG, config

from rl_gns.learn.batch import Batch
from rl_gns.learn.model import autocast
from rl_gns.rollout.collector import Collector, sample
from rl_gns.study.build import make_learner


def collector(settings, collector_id=0, generation=0):
    made = Collector(settings, collector_id, generation)
    made.load(make_learner(settings).weights(), 3)
    return made


def test_rebuilt_stacks_are_the_observations_that_the_agent_saw():
    """Over several blocks with resets (episodes of 40 env steps), byte for byte."""
    settings = config(PONG)
    made = collector(settings)
    step, seen = made.world.step, [made._observation]

    def recording(action):
        result = step(action)
        seen.append(result.observation)
        return result

    made.world.step = recording
    starts = 0
    for _ in range(6):
        seen[:] = seen[-1:]
        block = made.collect(16)
        starts += int(block.episode_start[1:].sum())
        rebuilt = Batch.from_blocks([block], 0.99, 0.95, "cpu").rows(np.arange(16 * 4)).observation.numpy()
        assert (rebuilt.reshape(16, 4, 4, 42, 42) == np.stack(seen[:16])).all()
    assert starts >= 4


def test_a_block_says_what_it_is():
    block = collector(config(PONG), collector_id=2, generation=1).collect(16)
    assert (block.policy_version, block.collector_id, block.generation, block.wave) == (3, 2, 1, 0)
    assert block.frames.shape == (20, 4, 42, 42) and block.frames.dtype == np.uint8
    assert block.burn_in_env_steps > 0 and block.valid.sum() <= 64
    assert np.isfinite(block.logp).all() and (block.logp <= 0).all()


def test_the_same_seed_gives_the_same_block_and_others_do_not():
    settings = config(CARTPOLE)
    a, b = collector(settings).collect(32), collector(settings).collect(32)
    assert all(np.array_equal(getattr(a, f), getattr(b, f)) for f in ("frames", "action", "logp", "reward"))
    for other in (collector(settings, 1), collector(settings, 0, 1), collector(config(CARTPOLE, {"seed": 1}))):
        assert not np.array_equal(a.frames, other.collect(32).frames)


def test_no_two_columns_of_a_run_share_a_seed():
    settings = config(CARTPOLE)
    made = collector(settings)
    seeds = []
    for generation in range(3):
        for collector_id in range(50):
            made.collector_id, made.generation = collector_id, generation
            seeds += made._column_seeds(4)
    assert len(set(seeds)) == len(seeds) and min(seeds) >= 0 and max(seeds) < 2**31


def test_saved_and_restored_collectors_go_on_alike():
    settings = config(CARTPOLE)
    first = collector(settings)
    first.collect(16)
    state = first.state()
    expected = [first.collect(16) for _ in range(3)]
    second = collector(settings)
    second.restore(state)
    for block in expected:
        again = second.collect(16)
        for name in ("frames", "action", "reward", "episode_returns", "valid"):
            assert np.array_equal(getattr(block, name), getattr(again, name)), name


def test_atari_collectors_cannot_be_saved_and_say_so():
    assert collector(config(PONG)).state() is None


def test_returns_are_raw_and_leave_out_the_episode_that_start_up_cut_into():
    made = collector(config(CARTPOLE))
    blocks = [made.collect(64) for _ in range(4)]
    returns = np.concatenate([b.episode_returns for b in blocks])
    lengths = np.concatenate([b.episode_lengths for b in blocks])
    assert len(returns) > 5 and (returns == lengths).all(), "CartPole pays 1 an env step"
    starts = np.concatenate([b.episode_start[1:] for b in blocks])
    cut_into = int((~blocks[0].episode_start[0]).sum())
    assert cut_into > 0 and len(returns) == starts.sum() - cut_into


def test_actions_follow_the_policy():
    """20,000 draws from (0.7, 0.2, 0.1): each frequency within 4.5 s.e. (false-alarm rate 2e-5)."""
    p = np.array([0.7, 0.2, 0.1])
    logits = np.tile(np.log(p).astype(np.float32), (20_000, 1))
    action, logp = sample(logits, np.random.default_rng(0))
    frequency = np.bincount(action, minlength=3) / 20_000
    assert (np.abs(frequency - p) < 4.5 * np.sqrt(p * (1 - p) / 20_000)).all()
    np.testing.assert_allclose(logp, np.log(p)[action], rtol=1e-5)


@pytest.mark.parametrize("head", ["policy_head", "value_head"])
def test_diverged_weights_are_refused(head):
    made = collector(config(CARTPOLE))
    weights = make_learner(config(CARTPOLE)).weights()
    weights[f"{head}.weight"] = np.full_like(weights[f"{head}.weight"], np.nan)
    made.load(weights, 4)
    with pytest.raises(FloatingPointError, match="not finite"):
        made.collect(4)


def test_inference_in_bf16_is_the_learners_own_forward_pass():
    """Weights cast once act as autocast's do: logits and values equal to 1e-6, and within 2 % of float32's scale."""
    settings = config(PONG, {"learner": {"precision": "bf16", "network": "small"}})
    made, learner = collector(settings), make_learner(settings)
    observation = made._observation
    logits, value = made._policy.infer(observation)
    with torch.inference_mode(), autocast("bf16"):
        theirs = [out.numpy() for out in learner.network(torch.from_numpy(observation))]
    with torch.inference_mode():
        exact = [out.numpy() for out in learner.network(torch.from_numpy(observation))]
    for mine, same, full in zip((logits, value), theirs, exact, strict=True):
        assert mine.dtype == np.float32
        np.testing.assert_allclose(mine, same, atol=1e-6)
        assert 0 < np.abs(mine - full).max() < 0.02 * np.abs(full).max()


def test_what_is_inferred_does_not_hang_on_how_rows_lie_in_memory():
    """CartPole's observations lie crosswise, and those of a state that was saved do not."""
    made = collector(config(CARTPOLE, {"rollout": {"columns_per_collector": 4}}))
    crosswise = np.asfortranarray(np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32))
    assert not made._observation.flags.c_contiguous and not crosswise.flags.c_contiguous
    for one, other in zip(made._policy.infer(crosswise), made._policy.infer(crosswise.copy("C")), strict=True):
        assert one.tobytes() == other.tobytes()
