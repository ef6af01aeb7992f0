"""The random projection keeps inner products, without bias, as well as its docstring says."""

import numpy as np

from rl_gns.noise import Across
from rl_gns.noise.projection import DIMENSIONS, Projection

from .across_worlds import STEPS, B, across_of
from .worlds import moments_of


def test_inner_products_over_seeds():
    """2,000 parameters to 101 coordinates, 2,000 seeds: |y|^2 and x . x' without bias, standard deviation sqrt(2/K) and
    at most sqrt(2/K) |x| |x'|. Negative control: without signs the mean is far off."""
    rng = np.random.default_rng(0)
    pair = rng.standard_normal((2, 2000)).astype(np.float32)
    pair[1] += 0.5 * pair[0]
    exact = pair.astype(np.float64) @ pair.T
    found = np.array([(y := Projection(2000, seed, 101)(pair)) @ y.T for seed in range(2000)])
    error = found.std(axis=0) / 2000**0.5
    assert (np.abs(found.mean(axis=0) - exact) < 4 * error).all()
    scale = np.sqrt(np.outer(np.diagonal(exact), np.diagonal(exact)) * Projection(2000, 0, 101).relative_variance)
    assert (found.std(axis=0) < 1.06 * scale).all() and found.std(axis=0)[0, 0] > 0.9 * scale[0, 0]
    shifted = pair + 1.0
    folded = np.array([np.bincount(np.arange(2000) % 101, row) for row in shifted])
    assert (folded @ folded.T)[0, 0] > 5 * float(shifted[0] @ shifted[0])


def test_it_is_linear_seeded_and_exact_where_nothing_is_to_be_saved():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 3, 40_000))
    project = Projection(40_000, 7)
    assert project(a).shape == (3, DIMENSIONS) and project(a).dtype == np.float64
    np.testing.assert_allclose(project(a) + 2 * project(b), project(a + 2 * b), atol=1e-9)
    assert (Projection(40_000, 7)(a) == project(a)).all() and not (Projection(40_000, 8)(a) == project(a)).all()
    small = Projection(DIMENSIONS, 7)
    assert small.relative_variance == 0 and (small(a[:, :DIMENSIONS]) == a[:, :DIMENSIONS]).all()


def test_dimensions_is_a_prime():
    assert all(DIMENSIONS % d for d in range(2, int(DIMENSIONS**0.5) + 1))


def test_a_projected_noise_scale_is_the_exact_one_within_its_stated_error():
    """60,000 parameters, noise to batch 2: the same stream with and without projection, 5 sqrt(2/K) apart at most; the
    interval is wider by that much and no more."""
    rng = np.random.default_rng(2)
    G = rng.standard_normal(60_000) / 60_000**0.5
    stream = [G + rng.standard_normal((16, 60_000)) * np.sqrt(2.0 * 16 / 60_000) for _ in range(4)]
    stream = [g.astype(np.float32) for g in stream]
    found, exact = (across_of(stream, 20, dimensions=k).noise_scales()["policy"] for k in (DIMENSIONS, 10**9))
    assert abs(found.signal_sq / exact.signal_sq - 1) < 5 * (2 / DIMENSIONS) ** 0.5
    assert found.noise_trace == exact.noise_trace
    assert found.low < 2.0 * B < found.high and found.high / found.low > exact.high / exact.low * 0.98


def test_memory_is_what_the_docstring_says():
    g = np.zeros((16, 50_000), np.float32) + np.arange(50_000)
    across = Across(1000.0)
    across.add({"policy": g, "rest": g}, moments_of(g, STEPS), B)
    sums = [a for w in across.state()["windows"] for a in w["sums"].values()]
    assert sum(a.nbytes for a in sums) == 3 * 2 * 16 * DIMENSIONS * 8 < 12.6e6
