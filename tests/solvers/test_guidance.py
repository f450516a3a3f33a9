"""DPS guidance: its two steps, where slices have norms of their own, and the wall at 2."""

import numpy as np
import pytest
import torch
from balls import small_scan
from tiny import GRID, SCAN, dense, measurement, projections, truth

from volrecon.datasteps import add_scaled, squared_steps, unit_steps
from volrecon.datasteps.guidance import separates_slices
from volrecon.errors import ConfigError
from volrecon.geometry import VolumeGeometry, cone, fan, parallel
from volrecon.solvers import Measurement
from volrecon.solvers.normal import data_residual
from volrecon.solvers.problem import least_squares
from volrecon.store import ZarrSpace
from volrecon.volume import RamSpace, RamVolume

CONE = cone(
    source_to_object_mm=30.0,
    source_to_detector_mm=45.0,
    detector_shape=(6, 10),
    pixel_mm=2.0,
    angles=2 * np.pi * np.arange(8) / 8,
)


def estimate() -> RamVolume:
    x = truth() + 0.3 * np.random.default_rng(1).standard_normal(GRID.shape)
    return RamVolume(torch.from_numpy(x).float())


@pytest.fixture(scope="module")
def stack():
    return least_squares(measurement(projections()), "none")


def test_the_beams_that_separate_slices():
    kept = {"parallel": True, "fan": True, "cone": False, "helical": False}
    assert {beam: separates_slices(small_scan(beam)) for beam in kept} == kept
    inclined = parallel(detector_shape=(4, 8), pixel_mm=1.0, angles=[0.0, 1.0], elevation=0.3)
    assert not separates_slices(inclined)
    one_row = fan(source_to_object_mm=50.0, source_to_detector_mm=75.0, columns=8, pixel_mm=1.0, angles=[0.0, 2.0])
    assert separates_slices(one_row)


def test_steps_of_the_squared_form_descend(stack):
    """x + zeta A'(y - Ax): the dense formula."""
    A, y = dense(stack)
    x = estimate()
    expected = x.tensor.numpy().ravel() + 1.5 * A.T @ (y - A @ x.tensor.numpy().ravel())
    left = data_residual(stack, x)
    add_scaled(stack.space, x, stack.space.of(stack.A.T(left.r)), squared_steps(stack, 1.5))
    np.testing.assert_allclose(x.tensor.numpy().ravel(), expected, atol=1e-5)


def test_unit_steps_by_slice(stack):
    """A stack of slices: the steps are those of every slice on its own."""
    left = data_residual(stack, estimate())
    steps = unit_steps(stack, 0.7, left)
    norms = torch.linalg.norm(left.r.tensor, dim=(1, 2))
    np.testing.assert_allclose(steps, 0.7 / norms, rtol=1e-6)
    g = stack.A.T(left.r).read(0, 3)
    lengths = steps * torch.linalg.norm(g, dim=(1, 2)).numpy()
    assert (lengths <= 0.7 * (1 + 1e-5)).all()
    assert lengths.min() > 0.1


@pytest.mark.parametrize("rows", [12, 6, 4])
def test_unit_steps_where_rows_are_not_slices(rows):
    """Rows of another pitch: a slice's norm is that of the rows it is as thick as, to a few percent."""
    grid = VolumeGeometry((6, 5, 5), (2.0, 1.0, 1.0))
    scan = parallel(detector_shape=(rows, 8), pixel_mm=(12.0 / rows, 1.0), angles=SCAN.angles)
    m = Measurement(RamVolume(torch.zeros(scan.shape)), scan, grid, RamSpace(), 1.0)
    problem = least_squares(m, "none")
    z = torch.linspace(1.0, 2.0, 6)[:, None, None]
    left = data_residual(problem, RamVolume(z.expand(grid.shape).contiguous()))
    squares = (1.0 / unit_steps(problem, 1.0, left)) ** 2
    assert squares.sum() == pytest.approx(left.squared, rel=0.1)
    # The volume fades beyond its first and last slice.
    inner = slice(1, -1)
    np.testing.assert_allclose((squares / squares[3])[inner], (z.ravel() / z[3, 0, 0]).numpy()[inner] ** 2, rtol=0.05)


def test_unit_steps_of_a_cone_share_one_norm():
    m = Measurement(RamVolume(torch.ones(CONE.shape)), CONE, GRID, RamSpace(), 1.0)
    problem = least_squares(m, "none")
    left = data_residual(problem, estimate())
    np.testing.assert_allclose(unit_steps(problem, 0.7, left), 0.7 / left.squared**0.5)


def test_slices_without_a_residual_stay(stack):
    """Exact data, or a slice beside the detector: no division by zero."""
    exact = data_residual(least_squares(measurement(np.zeros((3, 12, 8))), "none"), RamVolume(torch.zeros(GRID.shape)))
    assert not unit_steps(stack, 0.7, exact).any()
    low = parallel(detector_shape=(1, 8), pixel_mm=(2.0, 1.0), angles=SCAN.angles)
    m = Measurement(RamVolume(torch.ones(low.shape)), low, GRID, RamSpace(), 1.0)
    problem = least_squares(m, "none")
    steps = unit_steps(problem, 0.7, data_residual(problem, estimate()))
    assert steps[1] > 0
    assert steps[[0, 2]].tolist() == [0, 0]


@pytest.mark.parametrize("zeta", [0.5, 1.9])
def test_below_two_the_residual_falls(stack, zeta):
    x = estimate()
    squares = []
    for _ in range(30):
        left = data_residual(stack, x)
        squares.append(left.squared)
        add_scaled(stack.space, x, stack.space.of(stack.A.T(left.r)), squared_steps(stack, zeta))
    assert (np.diff(squares) < 0).all()


def test_at_the_wall_it_diverges(stack):
    """2.1 is refused; by hand it grows by 1.1 a step along the leading mode."""
    x, sizes = estimate(), []
    for _ in range(60):
        left = data_residual(stack, x)
        sizes.append(left.squared)
        add_scaled(stack.space, x, stack.space.of(stack.A.T(left.r)), np.full(3, 2.1))
    assert sizes[-1] / sizes[-2] == pytest.approx(1.1**2, rel=0.02)


@pytest.mark.parametrize("zeta", [0.0, -1.0, np.nan, 2.0, 1e30])
def test_N4_steps_without_meaning_are_refused(stack, zeta):
    with pytest.raises(ConfigError, match="zeta is"):
        squared_steps(stack, zeta)
    left = data_residual(stack, estimate())
    if zeta == 2.0:
        assert unit_steps(stack, zeta, left).all()
    else:
        with pytest.raises(ConfigError, match="zeta is"):
            unit_steps(stack, zeta, left)


def test_tiers_and_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("volrecon.volume.CHUNK_SLICES", 1)
    results = []
    with ZarrSpace(tmp_path, 1) as disk:
        for space in (RamSpace(1), disk):
            m = measurement(projections())
            problem = least_squares(Measurement(m.projections, m.scan, m.volume, space, 1.0), "none")
            x = space.of(estimate())
            left = data_residual(problem, x)
            g = space.of(problem.A.T(left.r))
            add_scaled(space, x, g, unit_steps(problem, 0.5, left))
            results.append(x.read(0, 3).numpy().tobytes())
    assert results[0] == results[1]
