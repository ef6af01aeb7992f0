"""One stream of Pong under a frozen policy, read in different ways: the noise scale must not depend on how.

The policy was trained (tests/data/README.md) and is softened (logits halved), so that its gradient has a signal that a
minute of play can show: the first 49,000 env steps of the policy as it is left a log-ratio unknown to +-60 %.
The log-ratio of two readings of the same env steps has an interval of its own: delete one of 8 sets of columns from
both readings at once (jackknife, t with 7 degrees of freedom). The seed is fixed, but a CPU that rounds otherwise draws
other actions: to it this is another stream. Of the two 99 % intervals that must hold 0 it fails one with probability
2 %; none of 120 drawn from twice these env steps (columns relabelled, Xeon) was wider than the bound.
"""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from tiny import config

from rl_gns.config_file import find, load_toml
from rl_gns.learn.gradients import group_gradients, rows_by_column
from rl_gns.noise.interval import student_quantile
from rl_gns.noise.moments import FrozenMoments
from rl_gns.records import PARTS
from rl_gns.rollout.sources import LocalSource
from rl_gns.study.build import make_learner

POLICY = Path(__file__).parent / "data" / "pong_small_1m.safetensors"
SETS, ATOMS, ROLLOUTS, ROLLOUTS_BF16 = 8, 64, 32, 24
"""Sets of columns that are deleted, atoms of one column that groups are made of, rollouts of 64 columns x 32, and how
many of these are read in bf16 too (slow where the CPU does not multiply it)."""
ATOM = np.arange(ATOMS)
SETTINGS = {
    "batch": {"size": 2048, "segment_steps": 32, "minibatches": 1},
    "rollout": {"columns_per_collector": 64, "scatter_env_steps": 30, "burn_in_env_steps": 64},
    "learner": {"threads": 1, "precision": "fp32"},
}

pytestmark = [pytest.mark.slow, pytest.mark.patient]


def frozen_policy():
    """The state of a learner, from the file."""
    with safe_open(POLICY, "numpy") as file:
        network = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118
        network |= {name: network[name] / 2 for name in ("policy_head.weight", "policy_head.bias")}
        return {"network": network, "statistics": json.loads(file.metadata()["statistics"]), "version": 0}


@functools.cache
def streams():
    """Precision -> rollouts of (mean gradients of the atoms [64, P], env steps [64]); of the same rows."""
    settings = config(load_toml(find("pong_small")), SETTINGS)
    learner, source = make_learner(settings), LocalSource(settings)
    learner.load_policy(frozen_policy())
    source.publish(learner.weights(), learner.version)
    found = {"fp32": [], "bf16": []}
    for n in range(ROLLOUTS):
        batch = learner.prepare(source.collect(settings.collectors(2048), 32).blocks)
        groups = rows_by_column(batch, ATOMS)
        for precision in ("fp32", "bf16") if n < ROLLOUTS_BF16 else ("fp32",):
            gradients = group_gradients(learner.network, batch, groups, settings.learner, precision)
            found[precision].append((gradients.policy.numpy(), gradients.env_steps))
    source.close()
    return found


def b_simple(rollouts, n_groups, pieces=1, without=None):
    """B_simple of the atoms regrouped into J = `n_groups` (atom mod J), each rollout cut into `pieces` of its columns;
    `without`: leave a set of columns (atom mod 8) out."""
    kept = np.ones(ATOMS, bool) if without is None else without != ATOM % SETS
    frozen = FrozenMoments()
    for gradients, env_steps in rollouts:
        for piece in range(pieces):
            here = kept & (ATOM * pieces // ATOMS == piece)
            labels = np.unique(ATOM[here] % n_groups)
            member = (labels[:, None] == ATOM % n_groups) & here
            steps = member @ env_steps
            means = (member * env_steps / steps[:, None]).astype(np.float32) @ gradients
            wide = means.astype(np.float64)
            rest = np.broadcast_to(np.float32(0), means.shape)
            frozen.add({"policy": means, "rest": rest}, dict.fromkeys(PARTS, wide @ wide.T), steps)
    estimate = frozen.estimate()
    return estimate.noise_trace / estimate.signal_sq


def log_ratio(one, other, confidence):
    """(low, high) of ln(one() / other()); each is a reading that takes `without`."""

    def difference(without=None):
        return np.log(one(without) / other(without))

    deleted = np.array([difference(k) for k in range(SETS)])
    error = np.sqrt((SETS - 1) / SETS * ((deleted - deleted.mean()) ** 2).sum())
    half_width = student_quantile(confidence, SETS - 1) * error
    middle = difference()
    print(f"ln ratio {middle:.3f} +- {half_width:.3f}, B_simple {one(None):,.0f} and {other(None):,.0f}")
    return middle - half_width, middle + half_width


def reading(*how, precision="fp32", rollouts=ROLLOUTS):
    return lambda without: b_simple(streams()[precision][:rollouts], *how, without=without)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((8,), (32,)),  # J
        ((8, 4), (8,)),  # B 512 against 2,048
    ],
    ids=["8 groups or 32", "B 512 or 2,048"],
)
def test_the_grouping_does_not_matter(one, other):
    """The interval of the log-ratio holds 0 and is narrower than a factor of 1.5 either way."""
    low, high = log_ratio(reading(*one), reading(*other), confidence=0.99)
    assert low < 0 < high and (high - low) / 2 < np.log(1.5)


def test_bf16_reads_what_float32_reads():
    """Within 30 %, 95 % interval and all. On the same rows the interval is so narrow (-0.02 +- 0.05 found) that it need
    not hold 0: rounded weights are a slightly different policy, whose gradient is a slightly different one."""
    pair = (reading(8, precision=precision, rollouts=ROLLOUTS_BF16) for precision in ("bf16", "fp32"))
    low, high = log_ratio(*pair, confidence=0.95)
    assert -np.log(1.3) < low and high < np.log(1.3)
