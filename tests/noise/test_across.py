"""The noise scale across rollouts: targets, biases by formula, coverage, the choice of the window, state."""

import numpy as np
import pytest

from rl_gns.noise import Across, DecayedMoments, gram_signal_trace, leave_one_out
from rl_gns.noise.across import LADDER, coherence, longest_steady
from rl_gns.rundir import RunDir

from .across_worlds import (
    STEPS,
    B,
    J,
    P,
    across_of,
    in_a_plane,
    noise,
    signal_of,
    target,
    wandering,
    weights,
    window_of,
)
from .worlds import key, moments_of


def test_every_number_from_its_definition():
    """Unequal groups, uneven spacing, three rollouts: by loops over pairs, groups deleted for real."""
    rng = np.random.default_rng(0)
    steps = rng.integers(20, 90, (3, 5))
    ends, policy, rest = [100, 700, 900], rng.standard_normal((3, 5, 7)), rng.standard_normal((3, 5, 7))
    held = DecayedMoments(500)
    for t in range(3):
        grams = {p: g[t] @ g[t].T for p, g in (("policy", policy), ("rest", rest), ("total", policy + rest))}
        within = {
            p: np.vstack([gram_signal_trace(m, steps[t]), np.column_stack(leave_one_out(m, steps[t]))])
            for p, m in grams.items()
        }
        held.add({"policy": policy[t], "rest": rest[t]}, within, steps[t].sum(), ends[t])
    w = steps.sum(axis=1) * np.exp((np.array(ends) - 900) / 500)
    for part, g in (("policy", policy), ("total", policy + rest)):
        found = held.estimate(part)
        np.testing.assert_allclose(found.values, by_loops(g, steps, w))
        for j in range(5):
            kept = np.arange(5) != j
            np.testing.assert_allclose(found.deleted[j], by_loops(g[:, kept], steps[:, kept], w))
    assert found.n_rollouts == pytest.approx(w.sum() ** 2 / (w**2).sum())
    assert found.env_steps == pytest.approx(w.sum() ** 2 / (w**2 / steps.sum(axis=1)).sum())


def by_loops(g, steps, w):
    m = np.einsum("t,tjp->jp", w, g) / w.sum()
    pairs = [m[i] @ m[j] for i in range(len(m)) for j in range(len(m)) if i != j]
    within = np.array([gram_signal_trace(x @ x.T, n) for x, n in zip(g, steps, strict=True)])
    return np.array([np.mean(pairs), *(w @ within / w.sum())])


def test_unequal_groups_leave_no_bias_where_the_gradient_turns():
    """Without noise the target comes out to rounding, whatever each group's N_tj. Negative control: means weighted by
    each group's own N_tj see a different mixture of directions each."""
    rng, G = np.random.default_rng(1), in_a_plane(30, 10)
    steps = rng.integers(10, 400, (30, J))
    held = DecayedMoments(8 * B)
    own = np.zeros((J, P))
    w = steps.sum(axis=1) * weights(30, 8)
    for t in range(30):
        within = np.zeros((J + 1, 2))
        held.add({"policy": np.tile(G[t], (J, 1))}, {"policy": within}, steps[t].sum(), (t + 1) * B)
        own += (steps[t] * weights(30, 8)[t])[:, None] * G[t]
    exact = np.sum((w @ G / w.sum()) ** 2)
    assert held.estimate("policy").signal_sq == pytest.approx(exact, rel=1e-12)
    own /= (steps * weights(30, 8)[:, None]).sum(axis=0)[:, None]
    pairs = (own @ own.T).sum() - np.sum(own**2)
    assert abs(pairs / (J * (J - 1)) - exact) > 1e-3


def test_across_resolves_where_within_does_not():
    """Noise to batch 20, 16 groups, 40 rollouts' worth of weight, |G|^2 = 1: across 1.00 +- 0.11, within 1.00 +- 0.34
    (isotropic in 200 parameters), as the formulas for normal noise say; 100 repeats, standard errors of the standard
    deviations 7 %, of the means 0.011 and 0.034; fixed seed."""
    rng, G = np.random.default_rng(2), in_a_plane(90, 0)
    found = [window_of(G[:, None] + noise(rng, 90, 20.0), 20) for _ in range(100)]
    assert found[0].n_rollouts == pytest.approx(40, rel=0.03)
    across, within, traces = np.array([f.values for f in found]).T
    print(f"across {across.mean():.2f} +- {across.std():.2f}, within {within.mean():.2f} +- {within.std():.2f}")
    left = 20 / found[0].n_rollouts
    expected = np.sqrt(4 * left / P + 2 * left**2 * J / (J - 1) / P)
    each = np.sqrt((4 * 20 / P + 2 * 20**2 * J / (J - 1) / P) / found[0].n_rollouts)
    assert across.mean() == pytest.approx(1, abs=0.04) and across.std() == pytest.approx(expected, rel=0.2)
    assert within.mean() == pytest.approx(1, abs=0.12) and within.std() == pytest.approx(each, rel=0.2)
    assert traces.mean() == pytest.approx(20 * B, rel=0.005)
    assert within.std() > 2.5 * across.std()


@pytest.mark.parametrize(
    ("degrees", "growth", "expected"), [(2, 1, 0.70), (5, 1, 0.25), (10, 1, 0.08), (0, 2, 2.35), (5, 2, 0.84)]
)
def test_turning_and_growing_gradients_have_the_bias_of_their_formula(degrees, growth, expected):
    """A window of 20 rollouts. In a plane the closed form is (1-f)^2 / (1 - 2 f cos a + f^2), f = exp(-1/20), but for
    what lies before the first of 100 rollouts (5 %)."""
    rng, G = np.random.default_rng(3), in_a_plane(100, degrees, growth)
    found = [signal_of(G[:, None] + noise(rng, 100, 4.0), 20) for _ in range(20)]
    assert target(G, 20) == pytest.approx(expected, rel=0.1)
    assert np.mean(found) == pytest.approx(target(G, 20), abs=4 * np.std(found) / 20**0.5 + 1e-3)
    if growth == 1:
        f, a = np.exp(-1 / 20), np.deg2rad(degrees)
        assert target(G, 20) == pytest.approx((1 - f) ** 2 / (1 - 2 * f * np.cos(a) + f**2), rel=0.06)


def test_a_wandering_gradient_loses_little():
    """5 degrees a rollout, each time in a new direction: E[G_s . G_t] = cos(5)^|s-t|, so 0.94 in a window of 20."""
    rng, a = np.random.default_rng(4), np.cos(np.deg2rad(5))
    targets = [target(wandering(rng, 160, 5), 20) for _ in range(40)]
    w = weights(160, 20)
    lag = np.abs(np.subtract.outer(np.arange(160), np.arange(160)))
    formula = w @ a**lag @ w / w.sum() ** 2
    assert formula == pytest.approx(0.93, abs=0.015)
    assert np.mean(targets) == pytest.approx(formula, abs=0.012)
    found = [signal_of(wandering(rng, 100, 5)[:, None] + noise(rng, 100, 20.0), 20) for _ in range(20)]
    assert np.mean(found) == pytest.approx(formula, abs=0.1) and np.std(found) < 0.2


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_noise_that_persists_in_a_column_does_no_harm(rho):
    """AR(1) within groups. Negative control: with products inside a group between different rollouts added, the mean is
    too large by sum_(s != t) w_s w_t rho^|s-t| / W^2 x the trace over a rollout / J groups of pairs."""
    rng, G, n, window = np.random.default_rng(5), in_a_plane(60, 0), 60, 15
    w, found, naive = weights(n, window), [], []
    for _ in range(60):
        g = G[:, None] + noise(rng, n, 4.0, rho)
        found.append(signal_of(g, window))
        sums = np.einsum("t,tjp->jp", w, g)
        same = np.einsum("t,tjp,tjp->", w**2, g, g)
        naive.append((np.sum(sums.sum(axis=0) ** 2) - same) / (w.sum() ** 2 * J**2 - (w**2).sum() * J))
    error = 4 * np.std(found) / 60**0.5
    assert np.mean(found) == pytest.approx(1, abs=error) and error < 0.25
    lag = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    between = w @ rho**lag @ w - (w**2).sum() if rho else 0.0
    exact = 1 * (w.sum() ** 2 * J**2 - (w**2).sum() * J) + between * 4.0 * J * J
    expected = exact / (w.sum() ** 2 * J**2 - (w**2).sum() * J)
    assert np.mean(naive) == pytest.approx(expected, abs=4 * np.std(naive) / 60**0.5 + 1e-2)
    assert rho == 0 or expected > 1 + 3 * error / 4


def test_rollouts_that_are_trained_on_feed_their_noise_back():
    """Plain SGD at rate eta on h |x|^2 / 2: E[e_s . G_t] = -eta h (1 - eta h)^(t-s-1) x the trace over a rollout. The
    bias against |mean G|^2 has that formula, vanishes with eta, and within rollouts there is none."""
    rng, n, window, trace, h = np.random.default_rng(6), 60, 15, 4.0, 1.0
    w = weights(n, window)
    lag = np.subtract.outer(np.arange(n), np.arange(n))
    for eta in (0.0, 0.02):
        across, within = [], []
        for _ in range(80):
            e, x, G = noise(rng, n, trace), np.full(P, P**-0.5), np.zeros((n, P))
            for t in range(n):
                G[t] = h * x
                x = x - eta * (G[t] + e[t].mean(axis=0))
            found = window_of(G[:, None] + e, window)
            across.append(found.signal_sq - target(G, window))
            within.append(found.within_signal_sq - w @ np.sum(G**2, axis=1) / w.sum())
        kernel = np.where(lag > 0, (1 - eta * h) ** np.maximum(lag - 1, 0), 0)
        bias = -2 * eta * h * trace * (w @ kernel @ w) / w.sum() ** 2
        assert np.mean(across) == pytest.approx(bias, abs=4 * np.std(across) / 80**0.5)
        assert abs(np.mean(within)) < 4 * np.std(within) / 80**0.5
        assert eta == 0 or bias < -5 * np.std(across) / 80**0.5


def test_a_gradient_that_turns_gets_a_shorter_window():
    """10 degrees a rollout in a plane at noise to batch 4: the longest window would read 0.09 of |G|^2; never chosen.
    The coherence of the longest window says so: its interval holds 0.09 and not 1."""
    rng, G = np.random.default_rng(8), in_a_plane(100, 10)
    scales = [across_of(G[:, None] + noise(rng, 100, 4.0), 20).noise_scales()["policy"] for _ in range(20)]
    assert all(s.window_env_steps < 20 * B for s in scales)
    assert np.mean([s.signal_sq for s in scales]) > 0.75
    assert all(s.coherence == pytest.approx(0.087, abs=0.06) and s.coherence_high < 0.5 for s in scales)
    still = window_of(in_a_plane(60, 0)[:, None] + noise(rng, 60, 4.0), 20)
    found = coherence(still)
    assert found["coherence_low"] < 1 < found["coherence_high"] and found["coherence_low"] > 0.3


def test_the_choice_by_hand():
    """Only a shorter window that exceeds by more than a standard error of the paired difference counts."""
    rng, G = np.random.default_rng(9), in_a_plane(100, 6)
    quiet = [window_of(G[:, None] + noise(rng, 100, 0.01), 20 * share) for share in LADDER]
    assert longest_steady(quiet) == 2
    assert longest_steady([quiet[0]] * 3) == 0
    assert longest_steady(quiet[2:]) == 0


def test_env_steps_needed_says_where_a_fading_window_ends():
    """Effective env steps grow as tanh(t / 2 window): the law behind `env_steps_needed`; and a signal that no such
    window can resolve has no number."""
    rng, G = np.random.default_rng(10), in_a_plane(60, 0)
    most = window_of(in_a_plane(400, 0)[:, None] + noise(rng, 400, 1.0), 20).env_steps
    for n in (5, 15, 40):
        held = window_of(G[:n, None] + noise(rng, n, 1.0), 20).env_steps
        assert held == pytest.approx(most * np.tanh(n / 40), rel=0.01)
    scales = [across_of(G[:8, None] + noise(rng, 8, 40.0), 20).noise_scales()["policy"] for _ in range(20)]
    open_ = [s for s in scales if not s.resolved]
    assert len(open_) >= 10 and all(s.env_steps_needed is None or s.env_steps_needed > 0 for s in open_)
    assert sum(s.env_steps_needed is not None for s in open_) >= 5
    short = across_of(in_a_plane(8, 0)[:, None] + noise(rng, 8, 3000.0), 2).noise_scales()["policy"]
    assert short.env_steps_needed is None


def test_a_new_key_or_other_groups_start_anew_and_more_columns_do_not():
    g = noise(np.random.default_rng(11), 6, 4.0)
    across = across_of(g[:3], 20)
    wider = moments_of(g[3], 4 * STEPS, policy_version=3)
    across.add({"policy": g[3], "rest": g[3]}, wider, 7 * B)
    scale = across.noise_scales()["policy"]
    assert (scale.first_version, scale.last_version, scale.pooling) == (0, 3, "across")
    fewer = moments_of(g[4, :8], STEPS[:8], policy_version=4)
    across.add({"policy": g[4, :8], "rest": g[4, :8]}, fewer, 8 * B)
    assert across.noise_scales()["policy"].first_version == 4 and across.noise_scales()["policy"].n_groups == 8
    other = moments_of(g[5, :8], STEPS[:8], policy_version=5, key=key(gamma=0.9))
    across.add({"policy": g[5, :8], "rest": g[5, :8]}, other, 9 * B)
    assert across.noise_scales()["policy"].first_version == 5
    narrow = {"policy": g[5, :8, :50], "rest": g[5, :8, :50]}
    across.add(narrow, moments_of(narrow["policy"], STEPS[:8], policy_version=6, key=key(gamma=0.9)), 10 * B)
    assert across.noise_scales()["policy"].n_rollouts == 1


def test_what_the_pool_leaves_out_is_left_out():
    g = noise(np.random.default_rng(12), 3, 4.0).astype(np.float32)
    across = across_of(g, 20)
    before = across.noise_scales()
    for moments in (
        moments_of(g[0], STEPS, max_ratio_error=0.5),
        moments_of(np.full_like(g[0], np.inf), STEPS),
        moments_of(g[0], np.array([0, *STEPS[1:]])),
    ):
        across.add({"policy": g[0], "rest": g[0]}, moments, 4 * B)
    assert across.noise_scales() == before
    across.add({"policy": g[0], "rest": g[0]}, moments_of(g[0], STEPS, key=key(normaliser="rollout")), 4 * B)
    assert across.noise_scales() is None
    pair = across_of(g[:, :2], 20, steps=STEPS[:2])
    assert pair.noise_scales() is None
    few = across_of(g[:, :5], 20, steps=STEPS[:5]).noise_scales()["policy"]
    assert few.reason.startswith("5 groups: at least 8") and few.b_simple is not None and not few.resolved


@pytest.mark.parametrize("dimensions", [64, 1000])
def test_state_through_a_checkpoint_changes_no_bit(tmp_path, dimensions):
    g = noise(np.random.default_rng(13), 12, 4.0).astype(np.float32)
    running = across_of(g[:6], 5, seed=3, dimensions=dimensions)
    RunDir(tmp_path).save_checkpoint(0, running.state())
    restored = Across.from_state(RunDir(tmp_path).load_checkpoint())
    assert restored.noise_scales() == running.noise_scales() is not None
    for across in (running, restored):
        for t in range(6, 12):
            across.add({"policy": g[t], "rest": g[t]}, moments_of(g[t], STEPS, policy_version=t), (t + 1) * B)
    assert restored.noise_scales() == running.noise_scales()
    assert Across.from_state(Across(100.0).state()).noise_scales() is None


def test_misuse_is_refused_in_words():
    with pytest.raises(ValueError, match="window_env_steps"):
        Across(0)


def test_what_came_since_the_batch_size_changed_is_known():
    """After 6 rollouts at B and 2 at 2 B: weights fade alike, so the share is (2 + 2 f) / (2 + 2 f + f^2 + ...)."""
    rng, f = np.random.default_rng(21), np.exp(-1 / 20)
    across = Across(20 * B)
    for t, size in enumerate([1] * 6 + [2] * 2):
        g = rng.standard_normal((J, P))
        across.add({"policy": g, "rest": g}, moments_of(g, size * STEPS, batch_size=size * B), (t + 1) * B)
    scale = across.noise_scales()["policy"]
    window = across.estimates("policy")[0]
    share = (2 + 2 * f) / (2 + 2 * f + sum(f**k for k in range(2, 8)))
    assert window.newest_share == pytest.approx(share)
    assert (scale.batch_size, scale.batch_size_rollouts) == (2 * B, 2)
    chosen = next(w for w in across.estimates("policy") if w.window_env_steps == scale.window_env_steps)
    assert scale.batch_size_env_steps == round(chosen.newest_share * chosen.env_steps)
