"""Volumes on other grids: what is constant, linear or averaged stays so."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volrecon.errors import DataError
from volrecon.geometry import VolumeGeometry
from volrecon.resample import resampled

SOURCE = VolumeGeometry((6, 8, 10), (2.0, 1.0, 1.5), (1.0, 2.0, 3.0))
VALUES = np.random.default_rng(0).random(SOURCE.shape, np.float32)

grids = st.builds(
    VolumeGeometry,
    st.tuples(*[st.integers(1, 20)] * 3),
    st.tuples(*[st.floats(0.2, 9)] * 3),
    st.tuples(*[st.floats(-5, 5)] * 3),
)


@settings(max_examples=40, deadline=None)
@given(target=grids)
def test_a_constant_stays_and_nothing_overshoots(target):
    np.testing.assert_allclose(resampled(np.full(SOURCE.shape, 3.0), SOURCE, target), 3.0, rtol=1e-5)
    out = resampled(VALUES, SOURCE, target)
    assert out.shape == target.shape
    assert out.dtype == np.float32
    assert out.flags.c_contiguous
    assert out.min() >= VALUES.min() - 1e-5
    assert out.max() <= VALUES.max() + 1e-5


def test_the_same_grid_is_the_same_array():
    assert np.array_equal(resampled(VALUES, SOURCE, SOURCE), VALUES)


@pytest.mark.parametrize("voxel", [(1.0, 0.5, 0.5), (3.0, 2.0, 2.5), (0.7, 3.0, 1.5)])
def test_a_linear_ramp_keeps_its_world_coordinates(voxel):
    def ramp(grid: VolumeGeometry) -> np.ndarray:
        z, y, x = np.indices(grid.shape)
        points = grid.origin_xyz_mm + np.stack([x, y, z], -1) * grid.voxel_xyz_mm
        return points @ [0.3, -0.2, 0.1]

    target = VolumeGeometry((2, 2, 2), voxel, (1.2, 2.1, 3.3))  # well inside
    np.testing.assert_allclose(resampled(ramp(SOURCE), SOURCE, target), ramp(target), atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_larger_voxels_average(axis):
    """Twice as large: the mean of the piecewise linear input, (1, 7, 7, 1)/16 over four neighbours."""
    shape, voxel = list(SOURCE.shape), list(SOURCE.voxel_zyx_mm)
    shape[axis] //= 2
    voxel[axis] *= 2
    out = np.moveaxis(
        resampled(VALUES, SOURCE, VolumeGeometry(tuple(shape), tuple(voxel), SOURCE.centre_xyz_mm)), axis, 0
    )
    x = np.moveaxis(VALUES, axis, 0)
    np.testing.assert_allclose(out[1], (x[1] + 7 * x[2] + 7 * x[3] + x[4]) / 16, atol=1e-6)
    assert out.mean() == pytest.approx(VALUES.mean(), rel=0.05)


def test_beyond_the_source_the_edge_goes_on():
    far = VolumeGeometry((2, 2, 2), (1.0, 1.0, 1.0), (100.0, 100.0, 100.0))
    np.testing.assert_allclose(resampled(VALUES, SOURCE, far), VALUES[-1, -1, -1], rtol=1e-6)


def test_integers_and_wrong_shapes():
    assert resampled(np.ones(SOURCE.shape, np.int16), SOURCE, SOURCE.refined(2)).dtype == np.float32
    with pytest.raises(DataError, match=r"\(6, 8, 9\).*\(6, 8, 10\)"):
        resampled(VALUES[:, :, :-1], SOURCE, SOURCE)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_voxel_along_an_axis(axis):
    shape = [4, 4, 4]
    shape[axis] = 1
    grid = VolumeGeometry(tuple(shape), (1.0, 1.0, 1.0))
    out = resampled(np.ones(shape), grid, grid.refined(3))
    np.testing.assert_allclose(out, 1, rtol=1e-6)
