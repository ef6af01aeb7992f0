"""Beside a frozen policy's noise scale: design effect, cosines, plans, and the spread of initialisations."""

import dataclasses
import math

import numpy as np
import pytest
from tiny import BANDIT, CARTPOLE, bandit_with_policy, config, numbers

from envs.bandits import ARMS, true_noise_scale
from rl_gns.noise.scale import hopeless_reasons
from rl_gns.records import to_json
from rl_gns.study.initialisations import directory, measure_fresh
from rl_gns.study.measure import design_effect, measure
from rl_gns.study.pooled import pool

ECHOED = {**BANDIT, "env": "EchoedBandit", "batch": {**BANDIT["batch"], "size": 1024}}


def test_the_design_effect_of_an_echo_is_the_echo():
    """A fresh policy on the echoed bandit: columns see 16 times the noise that shuffled transitions show, less what
    shuffling 1,024 rows leaves together, (R - 16) / (R - 1). 99.9 % interval, fixed seed."""
    settings = config(ECHOED, {"noise": {"confidence": 0.999}})
    found = measure(settings, 100_000, precision=0.0)
    expected = 16 * 1023 / (1024 - 16)
    assert found.design_effect_low < expected < found.design_effect_high
    assert found.design_effect == pytest.approx(expected, rel=0.25)


def test_without_an_echo_the_design_effect_is_one():
    """False alarm 0.1 % for another seed. The bandit's rewards are independent from row to row."""
    found = measure(config(BANDIT, {"noise": {"confidence": 0.999}}), 60_000, precision=0.0)
    assert found.design_effect_low < 1 < found.design_effect_high < 2 * found.design_effect_low


def test_the_cosine_between_groups_is_what_the_noise_scale_says():
    """Each group's b env steps: 1 / (1 + B_simple / b), with the truth's B_simple; the mean over 120 rollouts of 120
    pairs has a standard error below 0.01 (fixed seed; measured apart 0.004)."""
    logits, value = (0.5, -0.5), 0.5
    settings = config(BANDIT)
    found = measure(settings, 60_000, precision=0.0, state=bandit_with_policy(settings, logits, value))
    signal_sq, noise_trace = true_noise_scale(np.array(logits), value, ARMS["Bandit"])
    assert found.group_env_steps == 32
    expected = 1 / (1 + noise_trace / signal_sq / 32)
    assert found.expected_cosine == pytest.approx(expected, rel=0.25)
    assert found.mean_cosine == pytest.approx(expected, abs=0.04)


def test_what_is_still_needed_is_for_the_precision_that_was_asked():
    settings = config(BANDIT)
    state = bandit_with_policy(settings, (0.5, -0.5), 0.5)
    reached = measure(settings, 200_000, precision=0.5, state=state)
    assert reached.env_steps < 200_000 and reached.env_steps_needed == 0 and reached.precision == 0.5
    short = measure(settings, 10_000, precision=0.05, state=state)
    assert short.noise["policy"].resolved and short.env_steps_needed > 50_000
    assert "1/n" in short.law and short.env_steps >= short.max_env_steps == 10_000
    loose = measure(settings, 10_000, precision=math.inf, state=state)
    assert loose.precision is None and loose.env_steps_needed == 0


def test_design_effect_by_hand():
    known = design_effect(np.array([[1.0, 3.0], [3.0, 5.0]]), 0.95)
    assert known["design_effect"] == 2.0
    assert design_effect(np.array([[1.0, 3.0]]), 0.95) == {
        "design_effect": 3.0,
        "design_effect_low": None,
        "design_effect_high": None,
    }


def scale(b_simple, signal_sq=1.0, width=1.5, resolved=True):
    return {
        "signal_sq": signal_sq,
        "noise_trace": b_simple * abs(signal_sq),
        "b_simple": b_simple if signal_sq > 0 else None,
        "low": b_simple / width,
        "high": b_simple * width,
        "n_groups": 16,
        "confidence": 0.95,
        "resolved": resolved,
        "reason": None if resolved else "signal's interval touches zero",
    }


def test_policies_that_can_never_resolve_say_why():
    """The same numbers, with the reason; the control has none."""
    assert pool([scale(100.0), scale(120.0)], 0.95).reason is None
    few = scale(110.0, resolved=False) | {"reason": f"{hopeless_reasons(4, True)[0]}; signal's interval touches zero"}
    assert pool([scale(100.0), few], 0.95).reason == "4 groups: at least 8 are needed"


def test_each_policy_counts_once():
    """B_simple 100 and 200: 2 / (1 / 100 + 1 / 200), not 150, and not 175 = 700 / 4, whose gradient is the larger."""
    found = pool([scale(100.0), scale(200.0, signal_sq=3.0)], 0.95)
    assert found.b_simple == pytest.approx(400 / 3) and (found.least, found.most, found.n_resolved) == (100, 200, 2)
    assert found.between_log_std == pytest.approx(np.log(2) / np.sqrt(2))
    assert found.within_log_std == pytest.approx(np.log(1.5) / 1.96, rel=1e-3)


def test_a_policy_without_a_signal_counts_in_full():
    found = pool([scale(100.0), scale(120.0), scale(90.0, signal_sq=-0.1, resolved=False)], 0.95)
    assert found.b_simple == pytest.approx(3 / (1 / 100 + 1 / 120 - 1 / 90))
    assert found.most is None and found.n_resolved == 2
    none = pool([scale(100.0, signal_sq=-1.0, resolved=False)] * 2, 0.95)
    assert none.b_simple is None and none.high is None and none.between_log_std is None


def test_policies_that_agree_by_chance_resolve_nothing():
    """Three estimates within 2 %, each of a policy whose own interval has no upper end: the spread between them is
    narrow and says nothing of that."""
    alone = [scale(b_simple, width=4, resolved=False) | {"high": None} for b_simple in (99.0, 100.0, 101.0)]
    found = pool(alone, 0.95)
    assert found.between_high < 105 and not found.resolved
    assert found.high is None and found.low < 50 and found.reason == "no upper end within seeds"


def test_the_spread_covers_what_varies_between_policies():
    """5 policies whose signal varies by a half and whose own error is nil: 95 % of 400 intervals hold 1 over the
    expectation of 1 / B_simple, 92 to 98 % at false alarm 0.5 %."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        found = pool([scale(1000.0 / s, signal_sq=s, width=1.0) for s in rng.gamma(16, 1 / 16, 5)], 0.95)
        held += found.low <= 1000 <= (math.inf if found.high is None else found.high)
    assert 0.92 <= held / 400 <= 0.98


def test_what_changes_a_number_changes_where_it_lies(tmp_path):
    settings = config(CARTPOLE)
    there = directory(settings, 1000, math.inf, tmp_path)
    same = dataclasses.replace(settings, seed=7, actors=2, total_env_steps=9)
    assert directory(same, 1000, math.inf, tmp_path) == there
    others = [(config(CARTPOLE, {"learner": {"gamma": 0.5}}), 1000, math.inf), (settings, 2000, math.inf)]
    assert all(directory(*other, tmp_path) != there for other in [*others, (settings, 1000, 0.25)])


def test_a_fresh_measurement_is_the_one_of_its_seed(tmp_path):
    settings = config(CARTPOLE, {"seed": 3})
    both = measure_fresh(settings, 2, 1000, math.inf, tmp_path)
    alone = to_json(measure(settings, 1000))
    assert both["noise"] == alone["noise"] and both["initialisations"]["seeds"] == [3, 4]
    assert measure_fresh(settings, 1, 1000, math.inf, tmp_path)["initialisations"] is None


@pytest.mark.cluster
def test_through_ray_a_measurement_has_the_same_bits():
    settings = config(CARTPOLE)
    local, remote = (to_json(measure(dataclasses.replace(settings, actors=n), 1500)) for n in (0, 2))
    assert numbers(remote) == numbers(local)
