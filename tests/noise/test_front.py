"""The knee fit: exact where there is no noise, covering where there is, silent where the knee is not seen."""

import numpy as np
import pytest

from rl_gns.noise import fit_front, largest_useful_batch

BATCH = 2.0 ** np.arange(4, 15)  # 16 .. 16384


def front_steps(batch, s_min=1000.0, b_crit=500.0):
    return s_min * (1 + b_crit / batch)


@pytest.mark.parametrize("epochs", [1, 4])
def test_exact_points_are_recovered(epochs):
    """B_crit is the same for any epochs; E_min = S_min B_crit / epochs, the limit of S B / epochs at small B."""
    front = fit_front(BATCH, front_steps(BATCH), epochs=epochs)
    assert front.b_crit == pytest.approx(500, rel=1e-5)
    assert front.s_min == pytest.approx(1000, rel=1e-5)
    assert front.e_min == pytest.approx(500_000 / epochs, rel=1e-5)
    assert front.e_min == pytest.approx(front_steps(1e-6) * 1e-6 / epochs, rel=1e-4)
    assert front.low <= front.b_crit * (1 + 1e-6) and front.high >= front.b_crit * (1 - 1e-6)
    assert front.high / front.low < 1.001
    assert front.resolved and front.reason is None and front.rms_log < 1e-6 and front.n == 11


def test_interval_is_the_profile_at_its_limit():
    """F_{1,9}(0.9) = 3.3603: at each end of the interval SSE is SSE_min (1 + 3.3603 / 9); rms = sqrt(SSE_min / n)."""
    steps = front_steps(BATCH) * np.exp(0.1 * np.random.default_rng(0).standard_normal(11))
    front = fit_front(BATCH, steps)
    sse = [11 * np.var(np.log(steps) - np.log1p(b / BATCH)) for b in (front.b_crit, front.low, front.high)]
    assert sse[1] / sse[0] == pytest.approx(1 + 3.3603 / 9, rel=1e-4)
    assert sse[2] / sse[0] == pytest.approx(1 + 3.3603 / 9, rel=1e-4)
    assert front.rms_log == pytest.approx(np.sqrt(sse[0] / 11))
    nearby = [11 * np.var(np.log(steps) - np.log1p(b / BATCH)) for b in front.b_crit * np.array([0.99, 1.01])]
    assert min(nearby) > sse[0]


def test_intervals_cover_nine_times_in_ten():
    """500 fronts with 15 % scatter, nominal 90 %: 86 to 94 % hold the truth. False alarm 0.3 %, seed fixed."""
    rng, held = np.random.default_rng(1), []
    for _ in range(500):
        front = fit_front(BATCH, front_steps(BATCH) * np.exp(0.15 * rng.standard_normal(11)))
        held.append(front.low <= 500 and (front.high is None or front.high >= 500))
    print(f"coverage {np.mean(held):.3f}")
    assert 0.86 <= np.mean(held) <= 0.94


def test_one_sided_fronts_are_not_resolved():
    scatter = np.exp(0.05 * np.random.default_rng(2).standard_normal(6))
    falling = fit_front(BATCH[:6], front_steps(BATCH[:6], b_crit=1e5) * scatter)
    assert not falling.resolved and "still fall" in falling.reason and falling.high is None
    flat = fit_front(BATCH[-6:], front_steps(BATCH[-6:], b_crit=1.0) * scatter)
    assert not flat.resolved and "flat" in flat.reason and flat.low == 0
    near = fit_front(BATCH[:6], front_steps(BATCH[:6], b_crit=256.0))
    assert not near.resolved and near.b_crit == pytest.approx(256, rel=1e-4)


def test_limits_of_the_model():
    """S proportional to 1/B, and S constant: no knee, and the end of the front that is seen is given."""
    falling = fit_front(BATCH, 1e6 / BATCH, epochs=2)
    assert falling.b_crit is None and falling.s_min == 0 and falling.e_min == pytest.approx(5e5)
    flat = fit_front(BATCH, np.full(11, 300.0))
    assert (flat.b_crit, flat.e_min) == (0, 0) and flat.s_min == pytest.approx(300)


def test_a_power_law_has_no_knee_to_resolve():
    """Breakout's six points to a return of 2 (2026-11-23), S falling as B^-0.55: the hyperbola's interval is bounded on
    both sides and its knee has a factor of 4 beyond it, but nothing bends. The control is a hyperbola that does."""
    batch, steps = [40, 80, 160, 320, 640, 1280], np.array([1546, 1176, 813, 610, 380, 219.0])
    front = fit_front(batch, steps)
    assert front.low > 0 and front.high is not None and front.b_crit is not None
    assert not front.resolved and "power law" in front.reason
    scatter = np.exp(0.1 * np.random.default_rng(0).standard_normal(6))
    assert fit_front(batch, 300 * (1 + 200 / np.array(batch)) * scatter).resolved


def test_scattered_and_short_fronts_are_not_resolved():
    wild = front_steps(BATCH) * np.exp(2.0 * np.random.default_rng(3).standard_normal(11))
    assert not fit_front(BATCH, wild).resolved
    short = fit_front(BATCH[[0, 5, 10]], front_steps(BATCH[[0, 5, 10]]))
    assert short.b_crit == pytest.approx(500, rel=1e-4) and "3 points" in short.reason


def test_misuse_is_refused_in_words():
    with pytest.raises(ValueError, match="n >= 3"):
        fit_front([8, 16], [10, 9])
    with pytest.raises(ValueError, match="positive and finite"):
        fit_front([8, 16, 32], [10, 9, np.nan])
    with pytest.raises(ValueError, match="at 1 batch size"):
        fit_front([8, 8, 8], [10, 9, 9])
    with pytest.raises(ValueError, match="positive arrays"):
        largest_useful_batch([8, 16], [0, 1])


def test_largest_useful_batch_on_a_known_curve():
    """E = 1 + B / 500 from B = 1: the limit is 1.2 x 1.002, B <= 101.2."""
    batch = np.arange(1.0, 400.0)
    assert largest_useful_batch(batch, 1 + batch / 500) == 101
    assert largest_useful_batch(BATCH, 1 + BATCH / 500) == 64
    assert largest_useful_batch(BATCH, 1 + BATCH / 500, factor=2) == 512


def test_largest_useful_batch_is_not_fooled_by_one_lucky_run():
    """Large B that looks cheap after a dear one is pooled with it; repeats at one B enter as their mean ln E."""
    assert largest_useful_batch([8, 16, 32, 64], [100, 105, 300, 90]) == 16
    assert largest_useful_batch([8, 8, 16, 16], [100, 100, 100, 144]) == 16
    assert largest_useful_batch([8, 16, 16, 16, 32], [100, 130, 130, 130, 100]) == 8  # three runs outweigh one
    assert largest_useful_batch([8, 8, 16, 16], [100, 100, 100, 146]) == 8
