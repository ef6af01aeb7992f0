"""The interval of the largest useful batch: it covers the noiseless value, and says nothing of too few seeds."""

import numpy as np

from rl_gns.noise.useful import useful_limits

BATCH = 2.0 ** np.arange(4, 12)


def runs(seeds, sigma, rng, offsets=(0.0,), knee=300.0):
    """(batch, rate, E, reached) of E = 10,000 (1 + B / knee), worse by offset^2 at rates off the best."""
    shape = (len(BATCH), len(offsets), seeds)
    batch, rate = (np.broadcast_to(x, shape).ravel() for x in (BATCH[:, None, None], np.array(offsets)[None, :, None]))
    log_e = np.log(1e4 * (1 + batch / knee)) + rate**2 + sigma * rng.standard_normal(batch.size)
    return batch, np.exp(rate), np.exp(log_e), np.ones(batch.size, bool)


def test_it_covers_the_value_without_noise():
    """64 is the largest with 1 + B / 300 within 1.2 of 1 + 16 / 300. 40 trials at 90 %: fewer than 30 covered
    by chance once in 600 (binomial)."""
    rng = np.random.default_rng(1)
    found = [useful_limits(*runs(5, 0.3, rng)) for _ in range(40)]
    assert sum(low <= 64 <= high for low, high in found) >= 30
    assert np.median([high / low for low, high in found]) <= 8, "it says something"


def test_without_noise_it_is_the_value():
    assert useful_limits(*runs(3, 0.0, np.random.default_rng(0), offsets=(-0.3, 0.0, 0.3))) == (64, 64)


def test_two_seeds_say_nothing():
    assert useful_limits(*runs(2, 0.3, np.random.default_rng(0))) is None


def test_batch_sizes_that_hardly_got_there_are_left_out():
    batch, rate, env_steps, reached = runs(3, 0.0, np.random.default_rng(0))
    assert useful_limits(batch, rate, env_steps, reached & (batch != 64)) == (32, 32)
    assert useful_limits(batch, rate, env_steps, np.zeros(batch.size, bool)) is None
