"""Verdicts on branches: false alarms at known deficits, the negative control, the bracket, and the model's relation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_gns.noise.branching import (
    FALSE_ALARMS,
    MIN_SEEDS,
    b_crit_of,
    bracket,
    judge,
    marked_batch,
    mean_interval,
    of_rules,
)

TRIALS = 1500
MARGIN = 3 * math.sqrt(FALSE_ALARMS * (1 - FALSE_ALARMS) / TRIALS)
"""Three standard errors of a rate of 5 % over the trials."""


def verdicts(rng, deficits, gain=1.0, n=MIN_SEEDS, tolerance=0.25, spread=0.3, shared=0.0):
    """Verdicts of one batch size under one rule a deficit; scores of a seed share a draw of size `shared`."""
    common = shared * rng.normal(size=n)
    fork = common + 0.1 * rng.normal(size=n)
    reference = gain + common + spread * rng.normal(size=n)
    branches = [gain - d + common + spread * rng.normal(size=n) for d in deficits]
    return [judge(reference, fork, branch, tolerance, len(deficits)).verdict for branch in branches]


def rate(verdict, seed=0, **changes):
    rng = np.random.default_rng(seed)
    return sum(of_rules(verdicts(rng, **changes)) == verdict for _ in range(TRIALS)) / TRIALS


@pytest.mark.parametrize(
    ("deficits", "n", "shared"),
    [((0.25,), 5, 0.0), ((0.25, 0.25), 5, 0.0), ((0.25, 0.25), 10, 1.0), ((0.25, 0.6), 5, 1.0)],
)
def test_a_deficit_of_the_tolerance_passes_wrongly_in_at_most_one_case_in_twenty(deficits, n, shared):
    """Under one rule, under either of two that are just not good enough, and where one is hopeless."""
    assert rate("pass", deficits=deficits, n=n, shared=shared) <= FALSE_ALARMS + MARGIN
    assert rate("fail", deficits=deficits[:1] * 2, n=n, shared=shared) <= FALSE_ALARMS + MARGIN


def test_what_is_good_passes_and_what_is_bad_fails():
    """Not met vacuously: a spread of 0.1 between seeds, 5 of them, a gain of 1."""
    assert rate("pass", deficits=(0.0, 0.5), spread=0.1) > 0.6
    assert rate("pass", deficits=(0.0, 0.5), spread=0.1, n=10) > 0.95
    assert rate("fail", deficits=(0.6, 0.6), spread=0.1) > 0.6
    assert rate("fail", deficits=(0.0, 0.6), spread=0.1) == 0, "a better rule saves it"


def test_without_the_correction_the_better_of_two_rules_passes_too_often():
    """The negative control: each rule judged as if it were the only one."""
    rng, passed = np.random.default_rng(0), 0
    for _ in range(TRIALS):
        fork, reference, first, second = (
            level + spread * rng.normal(size=5) for level, spread in ((0, 0.01), (1, 0.01), (0.75, 0.3), (0.75, 0.3))
        )
        passed += "pass" in [judge(reference, fork, each, 0.25, 1).verdict for each in (first, second)]
    assert passed / TRIALS > FALSE_ALARMS + MARGIN


def test_a_reference_that_gains_nothing_lets_nothing_pass():
    assert rate("pass", deficits=(0.0, 0.0), gain=0.0) <= FALSE_ALARMS
    assert rate("pass", deficits=(-0.5, -0.5), gain=0.0) <= FALSE_ALARMS, "not even what is better than it"


@given(st.lists(st.tuples(*[st.floats(-1e3, 1e3)] * 3), min_size=2, max_size=8), st.floats(0.05, 0.9))
def test_a_verdict_is_never_more_than_its_intervals_carry(scores, tolerance):
    reference, fork, branch = (list(each) for each in zip(*scores, strict=True))
    found = judge(reference, fork, branch, tolerance, 2)
    gain = mean_interval(np.subtract(reference, fork), 0.95)
    assert (found.verdict == "unresolved") == (found.reason is not None)
    if found.verdict != "unresolved":
        assert gain.low > 0 and len(scores) >= MIN_SEEDS
        low, high = found.deficit_fraction.low, found.deficit_fraction.high
        slack = 1e-6 * max(1.0, abs(high))
        assert high < tolerance + slack if found.verdict == "pass" else low is not None and low > tolerance - slack


def test_fewer_seeds_failed_spread_and_gain_have_their_reasons():
    rng = np.random.default_rng(0)
    reference, fork = 1 + 0.01 * rng.normal(size=5), 0.01 * rng.normal(size=5)
    good = 1 + 0.01 * rng.normal(size=5)
    assert judge(reference, fork, good, 0.25, 2).verdict == "pass"
    assert "4 seeds: at least 5" in judge(reference[:4], fork[:4], good[:4], 0.25, 2).reason
    assert "no spread" in judge(reference, fork, reference, 0.25, 2).reason
    assert "gain does not exclude 0" in judge(fork, reference, good, 0.25, 2).reason
    assert judge(reference[:1], fork[:1], good[:1], 0.25, 2).deficit.low is None
    assert judge([], [], [], 0.25, 2).deficit.value is None


def test_the_fraction_is_the_deficit_over_the_gain():
    reference, fork, branch = [3.0, 4.0, 5.0, 4.1, 3.9], [1.0, 1.1, 0.9, 1.0, 1.0], [2.0, 3.0, 4.0, 3.0, 3.0]
    found = judge(reference, fork, branch, 0.25, 2)
    assert found.deficit_fraction.value == pytest.approx(1 / 3)
    assert found.deficit.value == pytest.approx(1.0) and found.deficit.low < 1 < found.deficit.high


def test_the_bracket_and_its_reasons():
    found = bracket({64: "fail", 512: "pass", 1024: "unresolved", 2048: "fail"}, 256, 0.25)
    assert (found.largest_pass, found.smallest_fail, found.resolved) == (512, 2048, True), "smaller ones bound nothing"
    assert found.b_crit_low == pytest.approx(512) and found.b_crit_high == pytest.approx(3 * 2048 - 4 * 256)
    assert "give larger ones" in bracket({512: "pass"}, 256, 0.25).reason
    assert "give smaller ones" in bracket({512: "fail"}, 256, 0.25).reason
    assert "512 fails" in bracket({512: "fail", 1024: "pass"}, 256, 0.25).reason
    assert bracket({128: "pass", 512: "fail"}, 256, 0.25).b_crit_low == 0, "closer than the tolerance can say"


@given(st.floats(1, 1e4), st.floats(1, 1e5), st.floats(0.05, 0.9))
def test_the_marked_batch_has_the_models_deficit(reference, b_crit, tolerance):
    marked = marked_batch(b_crit, reference, tolerance)
    assert (marked - reference) / (marked + b_crit) == pytest.approx(tolerance)
    assert b_crit_of(marked, reference, tolerance) == pytest.approx(b_crit, rel=1e-6)


def test_the_tolerances_that_the_text_names():
    assert marked_batch(3000, 1e-9, 0.25) == pytest.approx(1000) and marked_batch(3000, 1e-9, 0.5) == pytest.approx(
        3000
    )
