"""The control channel reads its known noise scale through the real pipeline, and trips where the pipeline is broken.

A flag trips on a healthy pipeline with probability 1e-6 a probe at most; other rates stand where they are claimed. All
seeds are fixed.
"""

import dataclasses
import json

import numpy as np
import pytest
from tiny import BANDIT, CARTPOLE, PONG, config, fingerprint, finished, replaced

from rl_gns.control_channel import COORDINATES, WITHIN_COLUMNS, ControlStream, control_law, trip_words, tripped
from rl_gns.learn.batch import Batch
from rl_gns.noise.pooling import Pool
from rl_gns.records import to_json
from rl_gns.report.summary import run_words
from rl_gns.rollout.blocks import layout
from rl_gns.rollout.collector import Collector
from rl_gns.rollout.sources import LocalSource
from rl_gns.study.build import make_learner
from rl_gns.study.live import LiveView
from rl_gns.study.status import facts, look
from rl_gns.study.train import train

STILL = {**BANDIT, "total_env_steps": 40_000, "learner": {**BANDIT["learner"], "learning_rate": 1e-12}}
EPISODES = {**STILL, "env": "EpisodicBandit"}
SHORT = {**STILL, "total_env_steps": 12_000}
SHUFFLED_LOW = 1 + 15 * WITHIN_COLUMNS
"""How many times too low shuffled transitions read at T = 16."""


def probe_of(settings, rollouts, change=lambda blocks: blocks):
    """The moments of successive rollouts of one policy, whose blocks `change` may tamper with."""
    learner, source = make_learner(settings), LocalSource(settings)
    for version in range(rollouts):
        source.publish(learner.weights(), version)
        learner.version = version
        blocks = source.collect(settings.collectors(settings.batch.size), settings.batch.segment_steps).blocks
        yield learner.probe(learner.prepare(change(blocks)))
    source.close()


def read(moments):
    pool = Pool(None, 0.95)
    for i, each in enumerate(moments):
        pool.add(each, 512 * (i + 1))
    return pool.control()


@pytest.mark.parametrize("base", [STILL, EPISODES], ids=["full", "masked"])
def test_it_reads_its_truth_through_the_whole_pipeline(base):
    """79 probes of every rollout. Five standard errors, of the known law: false-alarm rate about 1e-6."""
    _, records = finished(config(base, {"noise": {"confidence": 0.999}}))
    last = records[-1]
    found, truth = last.noise_control, last.noise_control_truth
    assert found.part == "control" and found.n_rollouts == last.noise["policy"].n_rollouts >= 78
    assert found.env_steps == last.noise["policy"].env_steps and found.n_groups == 16
    valid = last.env_steps / sum(r.collected_env_steps for r in records)
    assert valid == 1 if base is STILL else valid < 0.9
    whole = 1 / (1 + 15 * WITHIN_COLUMNS)
    assert truth["b_simple"] == pytest.approx(256 * (whole + (1 - whole) * valid), rel=0.1), "half a rollout of 512"
    assert found.low < truth["b_simple"] < found.high
    assert found.noise_trace == pytest.approx(truth["noise_trace"], rel=0.15)
    assert found.signal_sq == pytest.approx(truth["signal_sq"], rel=0.7)
    assert [r.noise_control_flag for r in records[:2]] == [None, None] and last.noise_control_flag == "ok"
    assert not any(map(tripped, map(to_json, records)))


def test_it_rides_beside_and_moves_no_weight():
    """Neither with the probe off nor with another law: nothing that trains reads it."""
    prints = set()
    for base in (CARTPOLE, PONG):
        on = config(base)
        off = replaced(on, noise=dataclasses.replace(on.noise, every=0))
        runs = [finished(on), finished(off)]
        prints.add(len({fingerprint(run.learner) for run, _ in runs}))
        assert all(r.noise_control is None and r.noise_control_flag is None for r in runs[1][1])
    assert prints == {1}


def test_one_block_has_the_variances_of_the_law():
    """20,000 rollouts of one column: variances and correlations within 5 standard errors (2 % and 0.02)."""
    settings = config(BANDIT, {"rollout": {"columns_per_collector": 64}, "batch": {"size": 1024}})
    law, stream = control_law(settings), ControlStream(settings, 0, 0)
    drawn = np.stack([stream.draw(16) for _ in range(300)])
    assert drawn.dtype == np.float32 and drawn.shape == (300, 16, 64, COORDINATES)
    noise = drawn.astype(np.float64) - np.sqrt(1 / COORDINATES)
    total = law.row_variance + law.column_variance
    assert law.b_simple(16) == pytest.approx(512) and law.column_variance / total == pytest.approx(WITHIN_COLUMNS)
    assert noise.var() == pytest.approx(total, rel=0.03)
    assert (noise[:, 0] * noise[:, 7]).mean() == pytest.approx(law.column_variance, rel=0.03)
    for lag in (1, 3):
        product = (noise[:-lag, 2] * noise[lag:, 2]).mean()
        assert product == pytest.approx(0.8**lag * law.column_variance, rel=0.05)
    assert abs((noise[:, 3, :32] * noise[:, 3, 32:]).mean()) < 0.03 * total, "columns share nothing"


def test_streams_are_each_collectors_and_generations_own():
    settings = config(CARTPOLE)
    blocks = [
        ControlStream(s, c, g).draw(4)
        for s in (settings, config(CARTPOLE, {"seed": 1}))
        for c in (0, 1)
        for g in (0, 1)
    ]
    assert len({b.tobytes() for b in blocks}) == 8
    made = Collector(settings, 1, 1)
    made.load(make_learner(settings).weights(), 0)
    assert made.collect(4).control.tobytes() == blocks[3].tobytes()


def test_a_saved_collector_draws_on_alike():
    settings = config(CARTPOLE)
    first, weights = Collector(settings, 0), make_learner(settings).weights()
    first.load(weights, 0)
    first.collect(16)
    second = Collector(settings, 0)
    second.restore(first.state())
    second.load(weights, 0)
    for _ in range(3):
        assert first.collect(16).control.tobytes() == second.collect(16).control.tobytes()


def shuffled(monkeypatch):
    """Groups of as many rows as before, but of transitions drawn from all columns."""
    rng, honest = np.random.default_rng(0), Batch.rows_of_columns
    left = []

    def rows(self, columns):
        if not left or left[0] is not self:
            left[:] = [self, rng.permutation(self.valid_rows())]
        wanted = len(honest(self, columns))
        taken, left[1] = left[1][:wanted], left[1][wanted:]
        return taken

    monkeypatch.setattr(Batch, "rows_of_columns", rows)


def test_shuffled_transitions_trip_it_and_are_said_everywhere(monkeypatch, tmp_path, capsys):
    """The real run, its groups made of shuffled rows: noise_trace reads 13 times low within 5 standard errors (8 %),
    B_simple 13 times and more, since columns that are in two groups look like signal."""
    shuffled(monkeypatch)
    settings = config(SHORT)
    with LiveView("run", settings.total_env_steps) as view:
        result = train(settings, tmp_path, view.show)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    flags = [r["noise_control_flag"] for r in records]
    first = flags.index("reads low")
    assert first <= 12 and set(flags[:first]) <= {None} and set(flags[first:]) == {"reads low"}
    assert result["noise_control_trips"] == sum(map(tripped, records)) == len(records) - first
    found, truth = records[-1]["noise_control"], records[-1]["noise_control_truth"]
    assert truth["noise_trace"] / found["noise_trace"] == pytest.approx(SHUFFLED_LOW, rel=0.08)
    assert 0.9 * SHUFFLED_LOW < truth["b_simple"] / found["b_simple"] < 2.5 * SHUFFLED_LOW
    said = trip_words(records[-1])
    assert said.startswith("reads ") and "times too low: B_simple" in said and "noise_trace 0.07" in said
    assert said in capsys.readouterr().err and said == facts(look(tmp_path, "run"))["control_channel"]
    (line,) = [line for line in run_words(tmp_path, result) if "control channel" in line]
    assert said in line and "do not trust" in line


def permuted(block):
    """Time and columns mixed in the block's synthetic gradients alone."""
    rows = np.random.default_rng(block.policy_version).permutation(block.control.reshape(-1, COORDINATES))
    return dataclasses.replace(block, control=rows.reshape(block.control.shape))


def test_rows_mixed_within_the_blocks_trip_it():
    settings = config(SHORT)
    assert read(probe_of(settings, 20)).noise_control_flag == "ok"
    mixed = read(probe_of(settings, 20, lambda blocks: [permuted(b) for b in blocks]))
    assert mixed.noise_control_flag == "reads low"


def test_one_collector_in_the_place_of_all_trips_it():
    """Blocks mixed up, so that columns come twice and more: groups that share noise have it taken for signal."""
    settings = config(STILL, {"noise": {"groups": 32}})
    honest, doubled = (read(probe_of(settings, 60, mix)) for mix in (list, lambda blocks: [blocks[0]] * 4))
    assert (honest.noise_control_flag, doubled.noise_control_flag) == ("ok", "reads low")
    assert doubled.noise_control.signal_sq > 2 * honest.noise_control.signal_sq


def test_one_collectors_stream_in_all_is_noise_that_does_not_average_out():
    """Seeds mixed up: each group of 16 holds a column twice, and reads twice the noise."""
    settings = config(SHORT)
    doubled = read(probe_of(settings, 12, lambda blocks: [blocks[0], blocks[1], blocks[0], blocks[1]]))
    assert doubled.noise_control_flag == "reads high"
    ratio = doubled.noise_control.noise_trace / doubled.noise_control_truth["noise_trace"]
    assert ratio == pytest.approx(2, rel=0.3)


def test_a_wrong_unit_trips_it_though_b_simple_is_right():
    """Everything twice as large, as by a sum where a mean is due."""

    def twice(blocks):
        return [dataclasses.replace(block, control=2 * block.control) for block in blocks]

    doubled = read(probe_of(config(SHORT), 20, twice))
    assert doubled.noise_control_flag in ("reads low", "reads high")
    assert doubled.noise_control.noise_trace == pytest.approx(4 * doubled.noise_control_truth["noise_trace"], rel=0.3)


def test_blocks_have_it_only_where_something_is_probed():
    settings = config(CARTPOLE)
    assert layout(settings).control_coordinates == COORDINATES
    assert layout(replaced(settings, noise=dataclasses.replace(settings.noise, every=0))).control_coordinates == 0
