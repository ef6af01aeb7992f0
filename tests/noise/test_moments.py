"""The group formulas: by hand, against other derivations, and in worlds where the truth is known."""

import numpy as np
import pytest

from rl_gns.noise import FrozenMoments, gram_signal_trace, leave_one_out, mean_cosine, signal_and_trace

from .worlds import frozen_of, gaussian_gradients, moments_of, signals_and_traces

GRADIENTS = np.array([[2.0, 0.0], [0.0, 2.0], [4.0, 4.0]])
STEPS = np.array([1, 1, 2])


def test_unequal_groups_by_hand():
    """N = 4, g = (2,0)/4 + (0,2)/4 + (4,4)/2 = (2.5, 2.5), |g|^2 = 12.5, sum (N_k/N)|g_k|^2 = 1 + 1 + 16 = 18."""
    signal_sq, noise_trace = gram_signal_trace(GRADIENTS @ GRADIENTS.T, STEPS)
    assert signal_sq == pytest.approx((3 * 12.5 - 18) / 2)
    # |g_k - g|^2 = 6.5, 6.5, 4.5, weights 1, 1, 2: 22 / 2
    assert noise_trace == pytest.approx(11.0)
    assert signal_and_trace(moments_of(GRADIENTS, STEPS), "total") == (signal_sq, noise_trace)


def test_gram_formula_agrees_with_the_vectors():
    rng = np.random.default_rng(0)
    gradients, steps = rng.normal(size=(9, 30)), rng.integers(1, 50, 9)
    expected = signals_and_traces(gradients, steps)
    assert gram_signal_trace(gradients @ gradients.T, steps) == pytest.approx(expected, rel=1e-12)


def test_equal_groups_agree_with_mccandlish_two_batch_formulas():
    """A.1 with B_small = b, |g_small|^2 averaged over all J, B_big = J b; and with the mean over pairs g_i . g_j."""
    rng, b, n_groups = np.random.default_rng(1), 32, 8
    gradients = rng.normal(0.3, 1.0, size=(n_groups, 20))
    big, small = gradients.mean(axis=0) @ gradients.mean(axis=0), (gradients**2).sum(axis=1).mean()
    b_big = n_groups * b
    signal_sq, noise_trace = gram_signal_trace(gradients @ gradients.T, np.full(n_groups, b))
    assert signal_sq == pytest.approx((b_big * big - b * small) / (b_big - b))
    assert noise_trace == pytest.approx((small - big) / (1 / b - 1 / b_big))
    gram = gradients @ gradients.T
    assert signal_sq == pytest.approx(gram[~np.eye(n_groups, dtype=bool)].mean())


def test_leave_one_out_is_the_formula_on_the_groups_that_stay():
    rng = np.random.default_rng(2)
    gradients, steps = rng.normal(size=(8, 12)), rng.integers(3, 40, 8)
    signal_sq, noise_trace = leave_one_out(gradients @ gradients.T, steps)
    for j in range(8):
        left = np.delete(gradients, j, axis=0)
        expected = gram_signal_trace(left @ left.T, np.delete(steps, j))
        assert (signal_sq[j], noise_trace[j]) == pytest.approx(expected, rel=1e-10)


def test_unequal_groups_are_unbiased_and_equal_weights_are_not():
    """Signal and trace within 2 % of the truth, standard errors about 0.4 % and 0.2 %: false alarm below 1e-5.

    Negative control: the equal-group formula on the same groups must miss the trace by more than 10 %.
    """
    rng, steps, b_simple = np.random.default_rng(3), np.array([4, 8, 8, 16, 32, 64, 64, 128]), 200.0
    gradients = gaussian_gradients(rng, (4000,), steps, b_simple, p=40)
    signal_sq, noise_trace = signals_and_traces(gradients, steps)
    assert signal_sq.std() / np.sqrt(4000) < 0.005
    assert signal_sq.mean() == pytest.approx(1.0, rel=0.02)
    assert noise_trace.mean() == pytest.approx(b_simple, rel=0.02)
    _, wrong = signals_and_traces(gradients, np.full(8, steps.mean()))
    assert abs(wrong.mean() / b_simple - 1) > 0.1


def autoreset_rows(rng, n_rollouts, n_columns, n_steps, p):
    """Rows [R, T, N, p] with mean e_0 and covariance I; an action > 0 (the sign of component 1) ends an episode with
    probability 0.4, else 0.02, and the row after an end is not valid: `valid` [R, T, N] depends on the gradients."""
    rows = rng.standard_normal((n_rollouts, n_steps, n_columns, p), dtype=np.float32)
    ends = rng.random(rows.shape[:-1]) < np.where(rows[..., 1] > 0, 0.4, 0.02)
    rows[..., 0] += 1.0
    valid = np.ones(rows.shape[:-1], dtype=bool)
    for t in range(1, n_steps):
        valid[:, t] = ~(ends[:, t - 1] & valid[:, t - 1])
    return rows, valid


def test_masks_tied_to_outcomes_leave_both_unbiased():
    """Autoreset masks that depend on the action: bias of order 1 / (env steps of a group), here below 2 %.

    Standard errors 0.4 % (signal) and 0.2 % (trace), tolerance 3 %: false alarm below 1e-5. Negative control: dividing
    by rows instead of valid rows must read the signal more than 15 % low.
    """
    rows, valid = autoreset_rows(np.random.default_rng(4), n_rollouts=400, n_columns=64, n_steps=16, p=8)
    masked = rows * valid[..., None]
    sums = masked.reshape(400, 16, 8, 8, 8).sum(axis=(1, 3))
    steps = valid.reshape(400, 16, 8, 8).sum(axis=(1, 3))
    assert valid.mean() < 0.9 and (steps.min(axis=1) < steps.max(axis=1)).all()
    signal_sq, noise_trace = signals_and_traces(sums / steps[..., None], steps)
    assert signal_sq.mean() == pytest.approx(1.0, rel=0.03)
    assert noise_trace.mean() == pytest.approx(8.0, rel=0.03)
    wrong, _ = signals_and_traces(sums / 128, np.full((400, 8), 128))
    assert wrong.mean() < 0.85


def test_shuffled_transitions_of_correlated_columns_read_too_low():
    """Negative control. Each column repeats one row T = 8 times, so b_simple is T times the row's: 8 * 40 = 320.

    Groups of columns are right within 5 % (standard error 0.5 %); transitions dealt to the groups at random must read
    below a half, as they hide what a column shares.
    """
    rng, n_columns, n_steps, p, n_rollouts = np.random.default_rng(5), 64, 8, 40, 200
    rows = np.repeat(rng.standard_normal((n_rollouts, n_columns, 1, p)), n_steps, axis=2)
    rows[..., 0] += 1.0
    steps = np.full(8, n_columns * n_steps // 8)
    by_columns = signals_and_traces(rows.reshape(n_rollouts, 8, -1, p).mean(axis=2), steps)
    shuffled = rows.reshape(n_rollouts, -1, p)[:, rng.permutation(n_columns * n_steps)]
    by_rows = signals_and_traces(shuffled.reshape(n_rollouts, 8, -1, p).mean(axis=2), steps)
    assert by_columns[1].mean() / by_columns[0].mean() == pytest.approx(n_steps * p, rel=0.05)
    assert by_rows[1].mean() / by_rows[0].mean() < 0.5 * n_steps * p


def test_mean_cosine():
    assert mean_cosine(np.array([[4.0, 3.0], [3.0, 9.0]])) == pytest.approx(0.5)
    assert np.isnan(mean_cosine(np.array([[4.0, 0.0], [0.0, 0.0]])))
    rng, steps = np.random.default_rng(6), np.full(8, 100)
    gradients = gaussian_gradients(rng, (200,), steps, b_simple=100.0, p=400)
    mean = np.mean([mean_cosine(g @ g.T) for g in gradients])
    assert mean == pytest.approx(1 / (1 + 100 / 100), rel=0.03)


def test_frozen_agrees_with_the_vectors_for_all_parts():
    rng = np.random.default_rng(7)
    policy, rest = rng.integers(-3, 4, (2, 5, 8, 12)).astype(float)
    steps = rng.integers(5, 20, (5, 8))
    frozen = frozen_of(policy, rest, steps)
    assert (frozen.n_rollouts, frozen.n_groups, frozen.env_steps) == (5, 8, steps.sum())
    for part, g in (("policy", policy), ("rest", rest), ("total", policy + rest)):
        estimate = frozen.estimate(part)
        signal_sq, noise_trace, long_run = frozen_by_vectors(g, steps)
        assert (estimate.signal_sq, estimate.noise_trace) == pytest.approx((signal_sq, noise_trace))
        assert estimate.long_run_trace == pytest.approx(long_run)
        assert estimate.long_run_ratio == pytest.approx(long_run / noise_trace)
        for j in range(8):
            left_signal, _, _ = frozen_by_vectors(np.delete(g, j, 1), np.delete(steps, j, 1))
            assert estimate.deleted[j, 0] == pytest.approx(left_signal)
            left_traces = signals_and_traces(np.delete(g, j, 1), np.delete(steps, j, 1))[1]
            assert estimate.deleted[j, 1] == pytest.approx(np.average(left_traces, weights=steps.sum(axis=1)))


def frozen_by_vectors(gradients, steps):
    held = steps.sum(axis=0)
    s = (steps[..., None] * gradients).sum(axis=0) / held[:, None]
    n = len(s)
    signal_sq = ((s.sum(axis=0) ** 2).sum() - (s**2).sum()) / (n * (n - 1))
    noise_trace = np.average(signals_and_traces(gradients, steps)[1], weights=steps.sum(axis=1))
    return signal_sq, noise_trace, np.mean(held * ((s**2).sum(axis=1) - signal_sq))


def test_frozen_sees_what_persists_in_a_column():
    """Independent rollouts have a long-run ratio of 1; an offset that a group keeps for 6 rollouts does not.

    With variance 1/b of the noise and 1/b of the offset, the trace within rollouts is 2 p and the long-run trace
    p + 6 p: ratio 3.5. Within 5 % (standard error 1 %); the signal, 20, stays unbiased.
    """
    rng, n_rollouts, n_groups, p, b = np.random.default_rng(8), 6, 8, 2000, 50
    fresh = rng.standard_normal((n_rollouts, n_groups, p)) / np.sqrt(b)
    lasting = rng.standard_normal((n_groups, p)) / np.sqrt(b)
    mean = np.full(p, 0.1)
    steps = np.full((n_rollouts, n_groups), b)
    independent = frozen_of(mean + fresh, fresh, steps).estimate("policy")
    assert independent.long_run_ratio == pytest.approx(1.0, rel=0.05)
    persistent = frozen_of(mean + fresh + lasting, fresh, steps).estimate("policy")
    assert persistent.long_run_ratio == pytest.approx(3.5, rel=0.05)
    assert persistent.signal_sq == pytest.approx(20.0, rel=0.05)


def test_misuse_is_refused_in_words():
    gram = GRADIENTS @ GRADIENTS.T
    with pytest.raises(ValueError, match="at least one valid env step"):
        gram_signal_trace(gram, np.array([1, 0, 2]))
    with pytest.raises(ValueError, match="1 groups"):
        gram_signal_trace(gram[:1, :1], STEPS[:1])
    with pytest.raises(ValueError, match=r"\[J, J\]"):
        gram_signal_trace(gram, STEPS[:2])
    with pytest.raises(ValueError, match="not finite"):
        gram_signal_trace(gram * np.nan, STEPS)
    with pytest.raises(ValueError, match="no rollout was added"):
        FrozenMoments().estimate("policy")
    frozen = frozen_of(np.ones((1, 8, 3)), np.ones((1, 8, 3)), np.ones((1, 8)))
    with pytest.raises(ValueError, match="must stay"):
        frozen.add(
            {"policy": np.ones((8, 4)), "rest": np.ones((8, 4))},
            dict.fromkeys(("policy", "rest", "total"), np.ones((8, 8))),
            np.ones(8),
        )
