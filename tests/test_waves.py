"""Several segments of a column in one rollout: a group holds all of them, and the key says so."""

import dataclasses

import numpy as np
import pytest
from tiny import BANDIT, CARTPOLE, PONG, bandit_with_policy, config, finished

from envs.bandits import ARMS, true_noise_scale
from rl_gns.control_channel import SIGNAL_SQ
from rl_gns.learn.gradients import column_groups, rows_by_column
from rl_gns.learn.returns import gae
from rl_gns.noise.moments import gram_signal_trace
from rl_gns.rollout.collector import Collector
from rl_gns.rollout.sources import LocalSource
from rl_gns.study.build import make_learner

WAVES, COLUMNS, STEPS = 4, 64, 4
ECHOED = {
    **BANDIT,
    "env": "EchoedBandit",
    "batch": {**BANDIT["batch"], "size": WAVES * COLUMNS * STEPS, "segment_steps": STEPS},
    "rollout": {**BANDIT["rollout"], "columns_per_collector": 16, "waves": WAVES},
    "noise": {"every": 1, "groups": COLUMNS},
}


def rollouts(settings, n, state=None):
    """The learner, and the blocks of n rollouts of its frozen policy."""
    learner, source = make_learner(settings), LocalSource(settings)
    if state is not None:
        learner.load_policy(state["learner"])
    source.publish(learner.weights(), learner.version)
    collectors, steps = settings.collectors(settings.batch.size), settings.batch.segment_steps
    found = [source.collect(collectors, steps).blocks for _ in range(n)]
    source.close()
    return learner, found


@pytest.fixture(scope="module")
def cartpole():
    """Three waves of 8 columns on two collectors: settings, learner, blocks."""
    settings = config(CARTPOLE, {"batch": {"size": 192}, "rollout": {"waves": 3}})
    learner, (blocks,) = rollouts(settings, 1)
    return settings, learner, blocks


def test_waves_are_the_same_columns_going_on(cartpole):
    """Three waves of T = 16 are what one segment of T = 48 would have been, frame by frame and action by action."""
    settings, _, blocks = cartpole
    longer = dataclasses.replace(settings.batch, segment_steps=48)
    _, (whole,) = rollouts(
        dataclasses.replace(settings, batch=longer, rollout=dataclasses.replace(settings.rollout, waves=1)), 1
    )
    assert [(b.wave, b.collector_id) for b in blocks] == [(w, c) for w in range(3) for c in range(2)]
    for name in ("action", "reward", "valid", "logp"):
        ours = [np.concatenate([getattr(b, name) for b in blocks[c::2]]) for c in range(2)]
        assert all(np.array_equal(a, getattr(b, name)) for a, b in zip(ours, whole, strict=True)), name
    frames = [np.concatenate([b.frames[:-1] for b in blocks[c::2]] + [blocks[c + 4].frames[-1:]]) for c in range(2)]
    assert all(np.array_equal(a, b.frames) for a, b in zip(frames, whole, strict=True))


def test_rows_lie_by_time_wave_and_column_and_every_segment_has_its_own_end(cartpole):
    settings, learner, blocks = cartpole
    batch, n = learner.prepare(blocks), 8
    assert (batch.waves, batch.n_columns, len(batch.valid), settings.columns) == (3, n, 384, n)
    known = settings.learner
    for b in blocks:
        place = np.s_[:, b.wave, 4 * b.collector_id : 4 * b.collector_id + 4]
        of_block = np.arange(384).reshape(16, 3, n)[place].reshape(-1)
        assert np.array_equal(batch.rows(of_block).observation.numpy(), b.frames[:16].reshape(64, -1))
        assert np.array_equal(batch.columns["action"].numpy()[of_block], b.action.reshape(-1))
        ended = (b.terminated, b.truncated)
        advantage = gae(b.reward, b.value, b.last_value, *ended, known.gamma, known.gae_lambda)
        assert np.array_equal(batch.columns["advantage"].numpy()[of_block], advantage.reshape(-1))


def test_stacks_are_rebuilt_within_their_own_wave():
    """Pixels: every rebuilt observation, also of the later wave, is the stack that the collector's world showed."""
    settings = config(PONG, {"batch": {"size": 64}, "rollout": {"waves": 2}, "atari": {"max_episode_frames": 60}})
    learner, collector, shown = make_learner(settings), Collector(settings, 0), []
    collector.load(learner.weights(), 0)
    step = collector.world.step

    def watched(action):
        shown.append(collector._observation.copy())
        return step(action)

    collector.world.step = watched
    blocks = [collector.collect(16, wave) for wave in range(2)]
    whole = learner.prepare(blocks).rows(np.arange(128)).observation.numpy().reshape(16, 2, 4, 4, 42, 42)
    assert np.array_equal(whole.swapaxes(0, 1).reshape(32, 4, 4, 42, 42), np.stack(shown)) and whole.any()
    assert any(b.episode_start[1:16].any() for b in blocks), "a reset within, whose stack is padded"


@pytest.mark.parametrize("n_groups", [2, 3, 8, 100])
def test_no_group_splits_a_column(cartpole, n_groups):
    _, learner, blocks = cartpole
    batch = learner.prepare(blocks)
    valid = np.stack([np.concatenate([b.valid for b in blocks if b.wave == w], axis=1) for w in range(3)], axis=1)
    for columns, rows in zip(column_groups(8, n_groups), rows_by_column(batch, n_groups), strict=True):
        wanted = np.zeros((16, 3, 8), bool)
        wanted[:, :, columns] = valid[:, :, columns]
        assert np.array_equal(rows, np.flatnonzero(wanted))
    assert batch.column_env_steps.tolist() == [valid.sum(axis=(0, 1)).tolist()]


def test_minibatches_of_columns_hold_all_waves_of_a_column():
    settings = config(CARTPOLE, {"rollout": {"waves": 2}, "batch": {"minibatch_by": "columns"}})
    learner, (blocks,) = rollouts(settings, 1)
    batch = learner.prepare(blocks)
    first, second = (set((rows % batch.n_columns).tolist()) for rows in learner._minibatches(batch))
    assert len(first) == len(second) == 4 and not first & second


def test_an_echo_over_all_waves_is_seen_by_columns_and_missed_by_waves():
    """T = 4 and 4 waves under an echo of 16: all rows of a column share one draw, and the trace is 16 times a row's.

    The negative control takes each wave for a column of its own, and reads 4 times too little: noise that groups share
    looks like signal. 30 rollouts of 64 groups of one direction: the mean trace has a standard error of
    sqrt(2 / 63 / 30) = 3.3 %, so 4 of them (false-alarm rate 6e-5) are 13 %.
    """
    settings = config(ECHOED)
    learner, found = rollouts(settings, 30, bandit_with_policy(settings, (0.0, 0.0), 0.0))
    batches = [learner.prepare(blocks) for blocks in found]
    blind = config({**ECHOED, "noise": {"every": 1, "groups": WAVES * COLUMNS}})
    learner_of = {True: learner, False: make_learner(blind)}
    learner_of[False].load_policy(learner.state())

    def trace(whole):
        waves = {} if whole else {"waves": 1, "n_columns": WAVES * COLUMNS}
        probes = [learner_of[whole].probe(dataclasses.replace(batch, **waves)) for batch in batches]
        assert {probe.n_groups for probe in probes} == {COLUMNS if whole else WAVES * COLUMNS}
        assert {probe.key.waves for probe in probes} == {WAVES if whole else 1}
        return np.mean([gram_signal_trace(p.gram["policy"], p.env_steps)[1] for p in probes])

    _, noise_trace = true_noise_scale(np.zeros(2), 0.0, ARMS["EchoedBandit"])
    assert trace(whole=True) == pytest.approx(noise_trace, rel=0.13)
    shared = (WAVES - 1) / (WAVES * COLUMNS - 1)  # of the pairs of segments are in one column
    assert trace(whole=False) == pytest.approx(noise_trace / WAVES * (1 - shared), rel=0.13)


def test_the_control_channel_keeps_a_columns_noise_over_its_waves():
    """E|g_k|^2 = |G|^2 + v_k by its law. A column's noise is AR(1) over rollouts (0.8: squares correlate by 0.64, so 50
    rollouts count as 11) in 8 coordinates of 64 groups: 4 standard errors (false-alarm rate 6e-5) are
    4 sqrt(2 / 11 / 512) = 8 %."""
    settings = config(ECHOED)
    learner, found = rollouts(settings, 50)
    control = [learner.probe(learner.prepare(blocks)).control for blocks in found]
    excess = np.mean([np.diagonal(c.gram).mean() for c in control]) - SIGNAL_SQ
    expected = np.mean([c.group_variance.mean() for c in control])
    assert excess == pytest.approx(expected, rel=0.08)
    assert expected * STEPS * WAVES == pytest.approx(settings.batch.size / 2), "B_simple is half a rollout"


def test_the_control_channels_law_knows_columns_that_are_seeded_anew_between_waves():
    """As those of an actor that failed: two waves of one generation, two of the next, and half of a column's noise.

    30 rollouts of 64 groups (a column each) of 8 coordinates, all independent: 4 standard errors (false-alarm rate
    6e-5) are 4 sqrt(2 / 30 / 512) = 4.6 %.
    """
    settings = config(ECHOED)
    learner, n_collectors = make_learner(settings), COLUMNS // 16

    def blocks(rollout):
        for wave in range(WAVES):
            for c in range(n_collectors):
                collector = hosts.setdefault(
                    (c, 2 * rollout + wave // 2), Collector(settings, c, 2 * rollout + wave // 2)
                )
                collector.load(learner.weights(), 0)
                yield collector.collect(STEPS, wave)

    hosts = {}
    control = [learner.probe(learner.prepare(list(blocks(r)))).control for r in range(30)]
    excess = np.mean([np.diagonal(c.gram).mean() for c in control]) - SIGNAL_SQ
    assert excess == pytest.approx(np.mean([c.group_variance.mean() for c in control]), rel=0.046)
    assert excess * STEPS * WAVES < 0.6 * settings.batch.size / 2, "of what whole columns would have"


def test_a_run_in_waves_trains_and_says_so():
    settings = config(CARTPOLE, {"rollout": {"waves": 2}})
    _, records = finished(settings)
    last = records[-1]
    assert last.columns == settings.columns == 8 and last.collected_env_steps == last.requested_env_steps == 256
    assert last.noise_control_flag is None or not last.noise_control_flag.startswith("reads")
    plain = finished(config(CARTPOLE))[1][-1]
    assert last.noise["policy"].key_id != plain.noise["policy"].key_id
