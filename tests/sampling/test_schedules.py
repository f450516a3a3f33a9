"""The VP schedule in sigma, the registry, and where a warm start begins."""

import math

import numpy as np
import pytest

from volrecon.errors import ConfigError
from volrecon.sampling import SCHEDULES, karras, level_pairs, truncated, vp_level, vp_linear

MEASURED = {0: 0.0100, 20: 0.0794, 100: 0.342, 200: 0.724, 300: 1.240, 500: 3.443, 980: 130.1, 995: 151.2, 999: 157.4}
"""sigma of DDPM's linear schedule by time, as other code has it."""


@pytest.mark.parametrize(("time", "sigma"), MEASURED.items())
def test_levels_of_the_linear_schedule(time, sigma):
    assert vp_level(time) == pytest.approx(sigma, rel=1e-3)


@pytest.mark.parametrize("steps", [50, 100, 200, 1000])
def test_respaced_as_published(steps):
    """Times 0, s, 2s, ... backwards: 980 to 0 for DDS, 995 to 0 for DiffusionBlend."""
    abar = np.cumprod([1 - (1e-4 + t / 999 * (0.02 - 1e-4)) for t in range(1000)])
    times = np.arange(0, 1000, 1000 // steps)[::-1]
    expected = np.sqrt((1 - abar[times]) / abar[times])
    np.testing.assert_allclose(vp_linear(vp_level(times[0]), vp_level(0), steps), expected, rtol=1e-9)


def test_between_times_log_sigma_is_linear():
    assert vp_level(100.5) == pytest.approx(math.sqrt(vp_level(100) * vp_level(101)))
    part = vp_linear(vp_level(300.25), vp_level(20.5), 5)
    np.testing.assert_allclose(part, [vp_level(t) for t in np.linspace(300.25, 20.5, 5)], rtol=1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_falls_from_end_to_end(name):
    for high, low, count in [(100.0, 0.02, 40), (1.5, 0.02, 7), (2.0, 1.9, 2)]:
        sigmas = SCHEDULES[name](high, low, count)
        assert (sigmas.dtype, sigmas.shape) == (np.float64, (count,))
        assert sigmas[[0, -1]] == pytest.approx([high, low], rel=1e-9)
        assert (np.diff(sigmas) < 0).all()
    assert SCHEDULES[name](3.0, 0.1, 1) == pytest.approx([3.0])
    with pytest.raises(ConfigError, match="high >= low > 0"):
        SCHEDULES[name](1.0, 2.0, 5)


@pytest.mark.parametrize(("high", "low"), [(200.0, 0.02), (10.0, 0.002)])
def test_levels_that_vp_has_not(high, low):
    with pytest.raises(ConfigError, match=r"beyond the VP schedule.s 157\.4"):
        vp_linear(high, low, 10)


@pytest.mark.parametrize("time", [-1, 1000, math.nan])
def test_times_that_vp_has_not(time):
    with pytest.raises(ConfigError, match="beyond the schedule's 0 to 999"):
        vp_level(time)


def test_a_warm_start_begins_where_it_is_told():
    sigmas = karras(10.0, 0.01, 20)
    middle = truncated(sigmas, 0.5)
    assert middle[0] == 0.5
    assert middle[1:].tolist() == sigmas[sigmas < 0.5].tolist()
    assert truncated(sigmas, sigmas[3]).tolist() == sigmas[3:].tolist()
    assert truncated(sigmas, sigmas[-1]).tolist() == [sigmas[-1]]
    assert truncated(sigmas, sigmas[0]).tolist() == sigmas.tolist()


@pytest.mark.parametrize("start", [11.0, 0.001, 0.0, -1.0, math.nan])
def test_a_warm_start_beside_the_schedule(start):
    with pytest.raises(ConfigError, match="does not lie within"):
        truncated(karras(10.0, 0.01, 20), start)


def test_the_last_step_goes_to_zero():
    assert level_pairs(np.array([3.0, 2.0, 0.5])) == [(3.0, 2.0), (2.0, 0.5), (0.5, 0.0)]
    assert level_pairs(np.array([3.0])) == [(3.0, 0.0)]
