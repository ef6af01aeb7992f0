"""The front predicted from a run's log of noise scales."""

import numpy as np
import pytest

from rl_gns.noise import Prediction, fit_front, pool_predictions, predict_front


def predict(steps, batch, b, epochs=1, trace=3.0):
    """From noise scales: the signal that goes with an arbitrary trace."""
    trace = np.full(len(b), trace)
    return predict_front(steps, batch, trace / np.asarray(b), trace, epochs)


@pytest.mark.parametrize("batch", [16.0, 500.0, 40_000.0])
def test_a_constant_noise_scale_is_b_crit_at_any_batch_size(batch):
    prediction = predict(np.full(100, 4), np.full(100, batch), np.full(100, 500.0))
    assert prediction.b_crit == pytest.approx(500)
    assert prediction.gamma == pytest.approx(1)
    assert prediction.s_min == pytest.approx(400 / (1 + 500 / batch))
    assert prediction.e_min == pytest.approx(500 * prediction.s_min)


def test_changing_noise_by_hand():
    """B = 100: 2 steps at b = 100 (ds = 1) and 10 steps at b = 400 (ds = 2): S_min 3, sum b ds 900, 2 epochs."""
    prediction = predict([2, 10], [100, 100], [100.0, 400.0], epochs=2)
    assert (prediction.s_min, prediction.e_min, prediction.b_crit) == pytest.approx((3, 450, 300))
    assert prediction.gamma == pytest.approx((1 * 10 + 2 * 20) ** 2 / (3 * 900))


def test_predicts_the_front_that_runs_at_fixed_batch_sizes_make():
    """The same way s in [0, 300] with b(s) = 20 + s run at many B: one run's log predicts the knee of all of them."""
    s, batch = np.linspace(0, 300, 3001)[:-1] + 0.05, 2.0 ** np.arange(3, 14)
    noise = 20 + s
    steps = np.array([(0.1 * (1 + noise / b)).sum() for b in batch])
    front = fit_front(batch, steps)
    for b in (8.0, 2048.0):
        prediction = predict(0.1 * (1 + noise / b), np.full(3000, b), noise)
        assert prediction.b_crit == pytest.approx(front.b_crit, rel=1e-4) == pytest.approx(170, rel=1e-4)
        assert prediction.s_min == pytest.approx(front.s_min, rel=1e-4)
        assert prediction.e_min == pytest.approx(front.e_min, rel=1e-4)


def test_missing_noise_is_left_out_and_said():
    prediction = predict_front([1, 3, 4], [100] * 3, [0.5, np.nan, 0.1], [100.0, 7.0, np.nan])
    assert prediction.b_crit == pytest.approx(200) and prediction.covered == pytest.approx(1 / 8)
    nothing = predict_front([1, 3], [100, 100], [np.nan, np.nan], [1.0, 1.0])
    assert nothing.covered == 0 and nothing.b_crit is None and nothing.s_min is None


def test_noisy_signals_below_zero_count_in_full():
    """20,000 steps at B = 256, b = 8,192, the signal's noise as large as itself: with the signed signals B_crit comes
    out within 5 %; leaving the negative ones out reads more than 20 % low. The ratio's standard error is 0.7 %, so
    the false-alarm rate is below 1e-9."""
    rng = np.random.default_rng(0)
    signal = rng.normal(1.0, 1.0, 20_000) / 8192
    steps, batch, trace = np.ones(20_000), np.full(20_000, 256.0), np.ones(20_000)
    assert predict_front(steps, batch, signal, trace).b_crit == pytest.approx(8192, rel=0.05)
    chosen = np.where(signal > 0, signal, np.nan)
    assert predict_front(steps, batch, chosen, trace).b_crit < 0.8 * 8192


def run(s_min, weighted, covered=1.0):
    return Prediction(s_min, weighted / 4, weighted / s_min if s_min > 0 else None, None, covered, 4)


def test_runs_are_pooled_as_sums_never_as_a_mean_of_ratios():
    pooled = pool_predictions([run(18.0, 3600.0), run(20.0, 4200.0, 0.5), run(22.0, 4200.0)])
    assert pooled.b_crit == pytest.approx(12_000 / 60)
    assert pooled.low < 200 < pooled.high and pooled.n_runs == 3 and pooled.covered == pytest.approx(2.5 / 3)


def test_pooled_runs_interval_covers():
    """12 runs to a goal, S_min and E_min each lognormal with 20 % spread: a 95 % interval holds the truth in 93 to
    97 % of 2,000 repeats (binomial s.e. 0.5 %: false-alarm rate below 1e-4)."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(2000):
        scatter = np.exp(rng.normal(0, 0.2, (12, 2)) - 0.02)
        pooled = pool_predictions([run(10 * a, 5000 * b) for a, b in scatter], confidence=0.95)
        held += pooled.low <= 500 <= pooled.high
    assert 0.93 <= held / 2000 <= 0.97


def test_unknown_signal_gives_a_lower_bound_only():
    pooled = pool_predictions([run(-1.0, 100.0), run(2.0, 120.0), run(-0.5, 90.0)])
    assert pooled.high is None and pooled.low > 0
    with pytest.raises(ValueError, match="at least 2"):
        pool_predictions([run(1.0, 1.0)])


def test_misuse_is_refused_in_words():
    with pytest.raises(ValueError, match="one n"):
        predict_front([1, 2], [100], [1.0], [1.0])
    with pytest.raises(ValueError, match="increments"):
        predict([5, -1], [100, 100], [1.0, 1.0])
    with pytest.raises(ValueError, match="positive, or NaN"):
        predict([5], [100], [1.0], trace=-1.0)
