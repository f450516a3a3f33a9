"""DDNM, ILVR and the parts of MCG: what is replaced, what is kept, and what it costs."""

import numpy as np
import pytest
import torch
from balls import GRID, MU, ball_projections, small_scan
from held import HeldSpace, counted
from hypothesis import given, settings
from hypothesis import strategies as st

from volrecon.datasteps import (
    Inverse,
    filtered_residual,
    low_frequencies_replaced,
    null_part,
    range_replaced,
    relaxed,
)
from volrecon.errors import ConfigError
from volrecon.noise import Noise
from volrecon.solvers import Measurement
from volrecon.solvers.fbp import FBP
from volrecon.solvers.fdk import FDK
from volrecon.solvers.problem import least_squares
from volrecon.store import ZarrSpace
from volrecon.volume import RamSpace, RamVolume

UNIT = 2 * MU
METHODS = {"cone": FDK(), "parallel": FBP(), "fan": FBP()}


def measurement(beam="cone", y=None, space=None, noise=None, views=24) -> Measurement:
    y = ball_projections(small_scan(beam, views)) if y is None else y
    stored = RamVolume(torch.from_numpy(y.copy()))
    return Measurement(stored, small_scan(beam, views), GRID, space or RamSpace(), UNIT, noise or Noise())


def parts(m: Measurement, beam="cone", weights="none"):
    return least_squares(m, weights), Inverse(METHODS[beam], m)


def direct(m: Measurement, beam: str) -> np.ndarray:
    """FDK or FBP of a measurement by its own steps."""
    method = METHODS[beam]
    problem = method.prepare(m)
    state = method.init(problem)
    while state.step < method.steps(problem):
        state, _ = method.step(problem, state)
    return state["x"].read(0, GRID.shape[0]).numpy()


def whole(volume) -> np.ndarray:
    return volume.read(0, volume.shape[0]).numpy()


def estimate(seed=0, space=None):
    x = np.random.default_rng(seed).random(GRID.shape, np.float32)
    return (space or RamSpace()).of(RamVolume(torch.from_numpy(x)))


@pytest.mark.parametrize("beam", METHODS)
def test_of_nothing_it_is_the_direct_method(beam):
    m = measurement(beam)
    problem, inverse = parts(m, beam)
    x = range_replaced(problem, inverse, RamVolume(torch.zeros(GRID.shape)))
    expected = direct(m, beam)
    np.testing.assert_allclose(whole(x), expected, atol=1e-5 * np.abs(expected).max())


def test_an_estimate_that_fits_stays():
    x0 = estimate()
    problem, _ = parts(measurement())
    y = whole(problem.A(x0)) / (problem.A.scale / UNIT)
    m = measurement(y=y)
    step = range_replaced(*parts(m), x0)
    np.testing.assert_allclose(whole(step), whole(x0), atol=2e-5)


def test_the_parts_add_up():
    """x0 + A^+(y - A x0) = A^+ y + (x0 - A^+ A x0): MCG's direction, and the null part of x0."""
    m, x0 = measurement(), estimate()
    problem, inverse = parts(m)
    replaced = whole(range_replaced(problem, inverse, x0))
    direction, square = filtered_residual(problem, inverse, x0)
    np.testing.assert_allclose(replaced, whole(x0) + whole(direction), atol=1e-6)
    assert square == pytest.approx((whole(direction).astype(np.float64) ** 2).sum(), rel=1e-6)
    np.testing.assert_allclose(replaced, direct(m, "cone") + whole(null_part(problem, inverse, x0)), atol=1e-4)


def test_clipping_bounds_both_terms():
    m, x0 = measurement(views=6), estimate()
    problem, inverse = parts(m)
    low, high = 0.0, 0.4
    own = whole(x0) - whole(null_part(problem, inverse, x0))
    known = direct(m, "cone")
    assert min(known.min(), own.min()) < low
    assert max(known.max(), own.max()) > high
    expected = whole(x0) + known.clip(low, high) - own.clip(low, high)
    np.testing.assert_allclose(whole(range_replaced(problem, inverse, x0, (low, high))), expected, atol=1e-4)
    wide = range_replaced(problem, inverse, x0, (-1e3, 1e3))
    np.testing.assert_allclose(whole(wide), whole(range_replaced(problem, inverse, x0)), atol=1e-4)


def chain(problem, inverse, clip=None) -> float:
    x = estimate()
    for _ in range(30):
        x = range_replaced(problem, inverse, x, clip)
    return float(np.abs(whole(x)).max())


def test_a_chain_with_few_views():
    """A^+ A is no projection: replacements grow, a clip bounds each of them, and relaxed ones stay."""
    problem, inverse = parts(measurement(views=4))
    assert chain(problem, inverse) > 1e3
    assert chain(problem, inverse, (0.0, 1.0)) < 50
    calm = relaxed(problem, inverse)
    assert 0.2 < calm.relaxation < 0.5
    assert chain(problem, calm) < 5


def test_with_many_views_nothing_is_relaxed():
    problem, inverse = parts(measurement(views=48))
    assert relaxed(problem, inverse).relaxation == 1.0


@pytest.mark.parametrize("weights", ["noise", "none"])
def test_weights_do_not_change_it_and_masked_pixels_say_nothing(weights):
    y = ball_projections(small_scan("cone"))
    x0, noise = estimate(), Noise("poisson", 1e4)
    masked = y.copy()
    masked[4, 3, 5:9] = np.nan
    problem, inverse = parts(measurement(y=masked, noise=noise), weights=weights)
    found = whole(range_replaced(problem, inverse, x0))
    # As if those pixels had measured x0 itself.
    plain, _ = parts(measurement(y=y))
    own = whole(plain.A(x0)) / (plain.A.scale / UNIT)
    filled = np.where(np.isnan(masked), own, y)
    expected = whole(range_replaced(*parts(measurement(y=filled)), x0))
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize(("clip", "projections"), [(None, 2), ((0.0, 1.0), 3)])
def test_what_it_holds_and_costs(clip, projections):
    space = HeldSpace()
    m, x0 = measurement(space=space), estimate()
    problem, inverse = parts(m)
    one = counted(problem, space)
    space.alive.clear()
    space.peak.clear()
    x = range_replaced(one, inverse, x0, clip)
    assert one.A.counts["forward"] == 1
    assert space.alive == [x]
    assert space.peak == {GRID.shape: 1, m.scan.shape: projections}
    direction, _ = filtered_residual(one, inverse, x0)
    null = null_part(one, inverse, x0)
    assert space.alive == [x, direction, null]
    assert space.peak[GRID.shape] == 3


def test_tiers_agree(tmp_path):
    results = []
    for space in (RamSpace(2**16), ZarrSpace(tmp_path, 2**16)):
        problem, inverse = parts(measurement(space=space))
        results.append(whole(range_replaced(problem, inverse, estimate(space=space), (0.0, 1.0))).tobytes())
    assert results[0] == results[1]


def test_a_geometry_that_has_no_inverse():
    problem, inverse = parts(measurement("helical"), "cone")
    with pytest.raises(ConfigError, match="fdk needs"):
        range_replaced(problem, inverse, estimate())
    with pytest.raises(ConfigError, match="clipped"):
        range_replaced(problem, inverse, estimate(), (1.0, 0.0))


@settings(max_examples=40, deadline=None)
@given(st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)), st.integers(1, 5))
def test_ilvr_takes_the_means_of_the_reference_and_the_detail_of_x(shape, factor):
    rng = np.random.default_rng(0)
    x, reference = (torch.from_numpy(rng.standard_normal(shape, np.float32)) for _ in range(2))
    found = low_frequencies_replaced(x, reference, factor)
    for row in range(0, shape[1], factor):
        for column in range(0, shape[2], factor):
            square = (slice(None), slice(row, row + factor), slice(column, column + factor))
            means = [a[square].mean(dim=(1, 2), keepdim=True) for a in (found, reference, x)]
            torch.testing.assert_close(means[0], means[1], atol=1e-5, rtol=0)
            torch.testing.assert_close(found[square] - means[0], x[square] - means[2], atol=1e-5, rtol=0)
    torch.testing.assert_close(low_frequencies_replaced(found, reference, factor), found, atol=1e-5, rtol=0)


def test_ilvr_of_no_square():
    with pytest.raises(ConfigError, match="squares of 0"):
        low_frequencies_replaced(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2), 0)
