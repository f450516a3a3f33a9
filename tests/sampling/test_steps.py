"""Schedules and sampler steps: ends, order, and a Gaussian whose sampler can be integrated by hand."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from volrecon.errors import ConfigError
from volrecon.sampling import ddim, geometric, karras

SCHEDULES = [karras, geometric]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("high", "low", "count"), [(40.0, 0.002, 18), (10.0, 0.003, 100), (1.0, 0.5, 2)])
def test_schedules_fall_from_end_to_end(schedule, high, low, count):
    sigmas = schedule(high, low, count)
    assert sigmas.dtype == np.float64
    assert len(sigmas) == count
    assert sigmas[[0, -1]] == pytest.approx([high, low], rel=1e-12)
    assert (np.diff(sigmas) < 0).all()


def test_schedules_between_their_ends():
    assert geometric(8.0, 1.0, 4) == pytest.approx([8, 4, 2, 1])
    assert karras(80.0, 0.002, 3)[1] == pytest.approx(((80 ** (1 / 7) + 0.002 ** (1 / 7)) / 2) ** 7)
    assert karras(9.0, 1.0, 3, power=1.0) == pytest.approx([9, 5, 1])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_one_level_is_the_highest(schedule):
    assert schedule(3.0, 0.1, 1) == pytest.approx([3.0])


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    ("high", "low", "count"),
    [
        (1.0, 2.0, 5),
        (1.0, 0.0, 5),
        (1.0, -1.0, 5),
        (math.inf, 1.0, 5),
        (math.nan, 1.0, 5),
        (1.0, math.nan, 5),
        (1, 1, 0),
    ],
)
def test_impossible_schedules_are_refused(schedule, high, low, count):
    with pytest.raises(ConfigError, match="high >= low > 0"):
        schedule(high, low, count)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("sigma", "following"), [(2.0, 1.0), (0.5, 0.49), (40.0, 0.002), (1.0, 0.0)])
def test_ddim_leaves_exactly_the_next_level_of_noise(eta, sigma, following):
    """x' = x0 + c2 e + c1 z with c1^2 + c2^2 = sigma'^2, c1 = eta sigma' sqrt(1 - sigma'^2/sigma^2)."""
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    kept = float(ddim(sigma * one, zero, zero, sigma, following, eta))
    fresh = float(ddim(zero, zero, one, sigma, following, eta))
    assert kept**2 + fresh**2 == pytest.approx(following**2, rel=1e-12, abs=1e-30)
    assert fresh == pytest.approx(eta * following * math.sqrt(1 - (following / sigma) ** 2), rel=1e-12)
    assert float(ddim(3 * one, 3 * one, zero, sigma, following, eta)) == 3


def test_ancestral_step_is_the_published_one():
    """eta 1: x' = x0 + sigma'^2/sigma^2 (x - x0) + sigma' sqrt(1 - sigma'^2/sigma^2) z."""
    x, x0, z = (torch.from_numpy(a) for a in np.random.default_rng(0).standard_normal((3, 50)))
    expected = x0 + 0.7**2 / 1.1**2 * (x - x0) + 0.7 * math.sqrt(1 - 0.7**2 / 1.1**2) * z
    torch.testing.assert_close(ddim(x, x0, z, 1.1, 0.7, 1.0), expected)


def test_deterministic_sampling_of_a_gaussian():
    """Data N(m, s^2) by dimension: the flow carries m + (x - m) sqrt((s^2 + low^2)/(s^2 + high^2)) to the low level."""
    high, low = 30.0, 0.01
    mean, deviation = torch.tensor([0.5, -1.0, 0.0]).double(), torch.tensor([0.3, 2.0, 0.05]).double()
    start = mean + high * torch.randn(100, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def sampled(count):
        x, sigmas = start, karras(high, low, count).tolist()
        for sigma, following in pairwise(sigmas):
            x0 = (deviation**2 * x + sigma**2 * mean) / (deviation**2 + sigma**2)
            x = ddim(x, x0, torch.zeros_like(x), sigma, following, 0.0)
        return x

    exact = mean + (start - mean) * ((deviation**2 + low**2) / (deviation**2 + high**2)).sqrt()
    errors = [float(((sampled(count) - exact) / deviation).abs().max()) for count in (400, 800)]
    assert errors[1] < 0.03
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)  # first order
