"""One noise scale from several seeds: both intervals against worlds whose answer is known, and what would be wrong."""

import dataclasses
import math

import numpy as np
import pytest

from rl_gns.noise.across_seeds import Limits, SeedScale, across_seeds, share_variance
from rl_gns.noise.held import frozen_scale
from rl_gns.noise.scale import hopeless_of, hopeless_reasons
from rl_gns.records import NoiseScale

from .worlds import frozen_of

J, RANK, REPEATS = 16, 24, 300


def measured(rng, signal_sq, noise_trace, group_env_steps):
    """A frozen policy's noise scale from real group gradients, Gaussian, of that |G|^2 and tr(Sigma)."""
    gradients = rng.standard_normal((1, J, RANK)) * np.sqrt(noise_trace / RANK / group_env_steps)
    gradients[..., 0] += np.sqrt(signal_sq)
    frozen = frozen_of(gradients, 0 * gradients, np.full((1, J), group_env_steps))
    return frozen_scale(frozen, "policy")


def seed_scale(scale):
    return SeedScale(scale.signal_sq, scale.noise_trace, scale.low, scale.high, scale.n_groups)


@pytest.fixture(scope="module")
def comparisons():
    """300 comparisons of 5 seeds: |G|^2 / tr(Sigma) is Gamma(4) of mean 1 / 1,000, and the gradient's scale grows with
    it, by its square; (what was found, the harmonic mean of these seeds, mean of their own ratios, ratio of sums)."""
    rng, found = np.random.default_rng(1), []
    for _ in range(REPEATS):
        share = rng.gamma(4, 1 / 4, 5)
        scales = [measured(rng, u**3, 1000 * u**2, 300) for u in share]
        alone = np.mean([scale.b_simple for scale in scales])
        sums = sum(scale.noise_trace for scale in scales) / sum(scale.signal_sq for scale in scales)
        found.append((across_seeds(list(map(seed_scale, scales))), 1000 / share.mean(), alone, sums))
    return found


def held(limits, truth):
    return limits.low <= truth <= limits.high


def test_the_interval_between_seeds_holds_what_another_policy_would_add(comparisons):
    """95 % of the intervals hold 1 / E[u] = 1,000: 92 to 98 % of 300 (false alarm about 1 % for another seed)."""
    assert 0.92 <= np.mean([held(each.between, 1000) for each, *_ in comparisons]) <= 0.98


def test_the_interval_within_seeds_holds_these_seeds_and_no_others(comparisons):
    """95 % or more for these very seeds (at least 92 % of 300: false alarm below 2 %); the control: taken for an
    interval of policies in general it holds far fewer."""
    assert np.mean([held(each.within, these) for each, these, *_ in comparisons]) >= 0.92
    assert np.mean([held(each.within, 1000) for each, *_ in comparisons]) < 0.75


def test_means_of_ratios_and_ratios_of_sums_would_be_biased(comparisons):
    """The median of what is found is within 6 % of the truth. That of the mean of ratios is more than 20 % above it; a
    ratio of sums, which the seeds of the largest gradients rule, more than 20 % below."""
    assert np.median([each.b_simple for each, *_ in comparisons]) == pytest.approx(1000, rel=0.06)
    assert np.median([alone for _, _, alone, _ in comparisons]) > 1200
    assert np.median([sums for *_, sums in comparisons]) < 800


def test_a_seed_counts_once_whatever_its_gradients_scale():
    """Its signal and trace times 10,000, its noise scale the same: the same numbers."""
    seeds = [SeedScale(1.0, 100.0, 50.0, 300.0, 16), SeedScale(3.0, 600.0, 100.0, 500.0, 16)] * 2
    scaled = [dataclasses.replace(seeds[0], signal_sq=1e4, noise_trace=1e6), *seeds[1:]]
    one, other = (dataclasses.asdict(across_seeds(each)) for each in (seeds, scaled))
    assert np.hstack([one["b_simple"], *map(list, map(dict.values, (one["within"], one["between"])))]) == pytest.approx(
        np.hstack([other["b_simple"], *map(list, map(dict.values, (other["within"], other["between"])))])
    )


def test_shares_are_averaged_by_hand():
    """Noise scales of 100 and 200: 2 / (1/100 + 1/200), whatever the signals; one below zero counts in full."""
    two = [SeedScale(1.0, 100.0, 50.0, math.inf, 16), SeedScale(3.0, 600.0, 100.0, math.inf, 16)]
    assert across_seeds(two).b_simple == pytest.approx(400 / 3) and across_seeds(two).between is None
    three = across_seeds([*two, SeedScale(-1.0, 100.0, 20.0, math.inf, 16)])
    assert three.b_simple == pytest.approx(600) and three.between is not None
    below = across_seeds([SeedScale(-1.0, 100.0, 50.0, math.inf, 16)] * 3)
    assert below.b_simple == math.inf and not below.within.resolved and below.within.high == math.inf
    with pytest.raises(ValueError, match="no seed"):
        across_seeds([])


def test_the_headline_is_the_wider_of_both_and_resolved_where_both_are():
    """Five seeds that happen to agree, none of which is known; and five that are known and differ."""
    agree = across_seeds([SeedScale(1.0, 100.0 + k, 20.0, math.inf, 16) for k in range(5)])
    assert agree.between.resolved and not agree.within.resolved
    assert agree.headline == Limits(agree.within.low, math.inf, False) and agree.reason == "no upper end within seeds"
    differ = across_seeds([SeedScale(1.0, 10.0**k, 0.9 * 10**k, 1.1 * 10**k, 16) for k in range(1, 6)])
    assert differ.within.resolved and not differ.between.resolved
    assert differ.headline == Limits(differ.between.low, math.inf, False)
    assert differ.reason == "no upper end between seeds"
    good = across_seeds([SeedScale(1.0, 100.0 + k, 90.0, 120.0, 16) for k in range(5)])
    assert good.headline == Limits(good.within.low, good.within.high, True) and good.reason is None


def test_the_headline_holds_the_truth_at_least_as_often(comparisons):
    """The wider at each end: never below what the interval between seeds holds, 92 % at least of 300 (false alarm about
    1 %); and those that are called resolved, most of them, hold it in 90 % (92 to 93 % in 847 of 900 elsewhere)."""
    covered = np.mean([held(each.headline, 1000) for each, *_ in comparisons])
    assert covered >= max(0.92, np.mean([held(each.between, 1000) for each, *_ in comparisons]))
    resolved = [held(each.headline, 1000) for each, *_ in comparisons if each.headline.resolved]
    assert len(resolved) > 240 and np.mean(resolved) >= 0.9


def test_seeds_that_can_never_resolve_are_no_headline():
    """The same numbers; the control, without the reason, resolves."""
    seeds = [SeedScale(1.0, 100.0 + k, 90.0, 120.0, 16) for k in range(4)]
    assert across_seeds(seeds).headline.resolved
    for n_groups, coupled, off_policy, words in ((4, False, False, "4 groups"), (16, True, True, "coupled")):
        why = tuple(hopeless_reasons(n_groups, coupled, off_policy))
        scale = NoiseScale(**{**vars(measured(np.random.default_rng(0), 1.0, 100.0, 300)), "reason": "; ".join(why)})
        assert hopeless_of(scale.reason) == why
        found = across_seeds([*seeds, dataclasses.replace(seeds[0], hopeless=why)])
        assert not found.headline.resolved and words in found.reason and found.headline.high < math.inf
    assert hopeless_of("3 blocks: at least 8 are needed; signal's interval touches zero") == hopeless_of(None) == ()


def test_seeds_of_one_confidence_are_pooled_at_another():
    """Their 95 % intervals stand for the same error, whatever is asked of the pool."""
    seeds = [SeedScale(1.0, 100.0 + k, 80.0, 140.0, 16) for k in range(5)]
    wide, narrow = (across_seeds(seeds, confidence).within for confidence in (0.95, 0.9))
    assert wide.low < narrow.low < narrow.high < wide.high
    alone = across_seeds(seeds[:1], 0.95).within
    assert (alone.low, alone.high) == pytest.approx((80.0, 140.0), rel=0.03)


def test_a_seed_without_noise_leaves_nothing_known():
    found = across_seeds([SeedScale(1.0, 100.0, 50.0, 300.0, 16)] * 2 + [SeedScale(0.0, 0.0, 0.0, math.inf, 16)])
    unknown = Limits(0.0, math.inf, False)
    assert found.b_simple == math.inf and found.within == unknown and found.between == unknown


def test_one_seed_gets_its_own_interval_back():
    """Nearly, the trace's own error being small beside the signal's; without an upper end to the last digits."""
    for seed in range(20):
        scale = measured(np.random.default_rng(seed), 1.0, 1000.0, 600)
        within = across_seeds([seed_scale(scale)]).within
        assert within.resolved and within.low == pytest.approx(scale.low, rel=0.1)
        assert within.high == pytest.approx(scale.high, rel=0.3)
    open_ended = SeedScale(0.5, 100.0, 40.0, math.inf, 16)
    assert across_seeds([open_ended]).within.low == pytest.approx(40.0, rel=1e-12)


def test_a_seed_without_a_limit_leaves_none():
    unknown = SeedScale(1.0, 100.0, 0.0, math.inf, 16)
    assert share_variance(unknown) == math.inf
    found = across_seeds([unknown, SeedScale(1.0, 100.0, 90.0, 120.0, 16)])
    assert (found.within.low, found.within.high, found.within.resolved) == (0.0, math.inf, False)
