"""Floors of fronts under wider clips: the verdicts, how often they are wrong, and how often they see a real move."""

import contextlib
import dataclasses

import numpy as np
import pytest

from rl_gns.noise import fit_front
from rl_gns.noise.front import NoFront
from rl_gns.noise.trust_region import UNMOVED, floor_ratio, judge
from scripts.fit_coverage import CARTPOLE, simulate

SIZES = np.repeat(4.0 ** np.arange(2, 7), 3)  # 16 .. 4096, three seeds each
B_CRIT = 100.0


def front(s_min=50.0, scatter=0.2, seed=0, sizes=SIZES):
    noise = np.random.default_rng(seed).standard_normal(len(sizes))
    return fit_front(sizes, s_min * (1 + B_CRIT / sizes) * np.exp(scatter * noise))


def with_floor(low, middle, high):
    return dataclasses.replace(front(), s_min_low=low, s_min=middle, s_min_high=high)


def test_the_interval_of_a_ratio_joins_those_of_the_floors():
    """By hand: ln 40 / 80 = -0.693; below sqrt(ln(40/30)^2 + ln(100/80)^2), above sqrt(ln(60/40)^2 + ln(80/50)^2)."""
    ratio = floor_ratio(with_floor(50.0, 80.0, 100.0), with_floor(30.0, 40.0, 60.0))
    assert ratio.ratio == pytest.approx(0.5)
    assert ratio.low == pytest.approx(0.5 * np.exp(-np.hypot(np.log(4 / 3), np.log(1.25))))
    assert ratio.high == pytest.approx(0.5 * np.exp(np.hypot(np.log(1.5), np.log(1.6))))
    back = floor_ratio(with_floor(30.0, 40.0, 60.0), with_floor(50.0, 80.0, 100.0))
    assert (back.low, back.high) == pytest.approx((1 / ratio.high, 1 / ratio.low))


def test_a_side_that_no_run_bounds_stays_open():
    open_below = floor_ratio(with_floor(50.0, 80.0, 100.0), with_floor(0.0, 0.0, 60.0))
    assert (open_below.ratio, open_below.low) == (0, 0) and open_below.high == pytest.approx(60 / 50)
    open_above = floor_ratio(with_floor(0.0, 80.0, 100.0), with_floor(30.0, 40.0, 60.0))
    assert open_above.high is None and open_above.low > 0
    assert floor_ratio(with_floor(0.0, 80.0, None), with_floor(30.0, 40.0, 60.0)) is None
    assert judge({"a": 0.2, "b": 0.4}, {"a": with_floor(0.0, 1.0, None), "b": front()})["a"].verdict == "not tested"


def held_and_width(fronts):
    """Share of 90 % intervals that hold the planted floor of 50, and the median of high / low."""
    held = [f.s_min_low <= 50 <= f.s_min_high for f in fronts]
    widths = [f.s_min_high / f.s_min_low if f.s_min_low else np.inf for f in fronts]
    print(f"{np.mean(held):.1%} of {len(held)} held, median high / low {np.median(widths):.2f}")
    return np.mean(held), np.median(widths)


def test_the_floors_interval_holds_the_planted_floor():
    rng = np.random.default_rng(8)
    held, width = held_and_width([front(seed=int(rng.integers(1 << 31))) for _ in range(40)])
    assert held >= 0.8 and width < 2, "nor vacuously"


@pytest.mark.slow
@pytest.mark.patient
def test_the_floors_interval_where_learning_rates_are_chosen():
    rng, fronts = np.random.default_rng(8), []
    for _ in range(80):
        with contextlib.suppress(NoFront):
            fronts.append(fit_front(**simulate(dataclasses.replace(CARTPOLE, s_min=50.0), rng)))
    held, width = held_and_width(fronts)
    assert len(fronts) > 60 and held >= 0.82 and width < 2


def test_a_floor_is_held_against_the_next_wider_clip():
    """The floor falls from 0.1 to 0.2, and no more: only the narrowest is limited."""
    fronts = {"narrow": front(150.0), "middle": front(50.0, seed=1), "wide": front(50.0, seed=2)}
    found = judge({"wide": 0.4, "narrow": 0.1, "middle": 0.2}, fronts)
    assert found["narrow"].verdict == "limited" and found["narrow"].limited_by == "trust region"
    assert (found["narrow"].narrower, found["narrow"].wider) == ("narrow", "middle")
    assert found["middle"].limited_by is found["wide"].limited_by is None
    assert found["middle"].wider == "wide" and found["wide"].verdict == found["middle"].verdict
    assert "S_min(middle) / S_min(narrow) = 0.3" in found["narrow"].reason


def test_the_widest_is_limited_until_a_wider_clip_shows_otherwise():
    fronts = {"narrow": front(150.0), "wide": front(50.0, seed=1), "none": front(50.0, seed=2)}
    two = judge({"narrow": 0.2, "wide": 0.4}, fronts)
    assert two["wide"].verdict == "limited" and "no wider clip was tried" in two["wide"].reason
    three = judge({"narrow": 0.2, "wide": 0.4, "none": 0.0}, fronts)
    assert three["narrow"].verdict == "limited" and three["wide"].verdict != "limited", "a clip of 0 is the widest"
    assert three["none"].verdict == "not limited" and three["none"].reason == "there is no clip"


def test_what_cannot_be_told_is_not_said():
    near = judge({"a": 0.2, "b": 0.4}, {"a": with_floor(30.0, 50.0, 80.0), "b": with_floor(31.0, 50.0, 80.0)})
    assert near["a"].verdict == "not excluded" and near["a"].limited_by is None
    close = judge({"a": 0.2, "b": 0.4}, {"a": front(scatter=0.02), "b": front(scatter=0.02, seed=1)})
    assert close["a"].verdict == "not limited" and close["a"].floor_ratio.low > 1 / UNMOVED
    alone = judge({"a": 0.2, "b": 0.4, "c": 0.8}, {"a": front(), "b": None, "c": None})
    assert {v.verdict for v in alone.values()} == {"not tested"} and alone["b"].reason == "there is no front"
    past = judge({"a": 0.2, "b": 0.4, "c": 0.8}, {"a": front(200.0), "b": None, "c": front()})
    assert past["a"].verdict == "limited" and past["a"].wider == "c", "the next wider one that has a front"


def test_runs_that_the_clip_never_touched_are_the_same():
    found = judge({"a2c": 0.0, "ppo1": 0.2}, {"a2c": front(), "ppo1": front()})
    assert found["ppo1"].verdict == "not limited" and "the same runs" in found["ppo1"].reason


def share_limited(factor, pairs, make):
    """Share of pairs of fronts called limited, the wider clip's floor lower by `factor`."""
    said = []
    for _ in range(pairs):
        try:
            fronts = {"narrow": make(50.0 * factor), "wide": make(50.0)}
        except NoFront:
            continue
        said.append(judge({"narrow": 0.2, "wide": 0.4}, fronts)["narrow"].verdict == "limited")
    print(f"floor lower by {factor:g}: limited in {np.mean(said):.1%} of {len(said)} pairs")
    return np.mean(said)


def one_rate(rng):
    """5 sizes x 3 seeds, scatter of ln S 0.2."""
    return lambda s_min: front(s_min, seed=int(rng.integers(1 << 31)))


def tuned(rng):
    """4 sizes x 3 rates x 3 seeds, scatter 0.3, the seeds resampled."""
    grid = dataclasses.replace(
        CARTPOLE, batch_sizes=(64, 256, 1024, 4096), factors=(0.25, 1.0, 4.0), seeds=3, sigma=0.3, b_crit=B_CRIT
    )
    return lambda s_min: fit_front(**simulate(dataclasses.replace(grid, s_min=s_min), rng))


def test_how_often_a_floor_is_said_to_move():
    """Nominally 5 % where it does not; `slow` has the numbers of enough pairs."""
    assert share_limited(1.0, 40, one_rate(np.random.default_rng(11))) <= 0.1
    assert share_limited(1.5, 15, one_rate(np.random.default_rng(13))) >= 0.8


@pytest.mark.slow
@pytest.mark.patient
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("world", "power"), [(one_rate, 0.8), (tuned, 0.5)])
def test_false_alarms_and_power(world, power):
    """200 pairs without a move: a standard error of 1.5 % about the nominal 5 %."""
    assert share_limited(1.0, 200, world(np.random.default_rng(12))) <= 0.1
    assert share_limited(1.5, 60, world(np.random.default_rng(14))) >= power
