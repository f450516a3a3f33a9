"""Simulated scans: they see the object, and neither blocks nor the finer grid change what they mean."""

import numpy as np
import pytest
from balls import CENTRE, GRID, MU, RADIUS, ball_projections

from volrecon.errors import ConfigError, DataError, GeometryError
from volrecon.geometry import VolumeGeometry, coverage
from volrecon.noise import Noise
from volrecon.phantoms.shapes import ball
from volrecon.simulate import Setup, attenuation, design_scan, phantom, prepare, project, write_simulation
from volrecon.store import ScanHeader, open_scan, open_volume

BEAMS = ["cone", "fan", "parallel", "helical"]
BALL = ball(GRID, CENTRE, RADIUS, MU)


def simulated(beam: str, oversample: int, noise: Noise = Noise(), seed: int = 0, views: int = 5, **numbers):  # noqa: B008
    fine = ball(GRID.refined(oversample), CENTRE, RADIUS, MU)
    scan = design_scan(Setup(beam, views, **numbers), BALL, GRID, MU)
    return scan, np.concatenate(list(project(fine, GRID, scan, oversample, noise, seed)))


@pytest.mark.parametrize("beam", BEAMS)
@pytest.mark.parametrize("oversample", [1, 2, 3])
def test_projections_of_a_ball_are_its_chords(beam, oversample):
    scan, y = simulated(beam, oversample)
    exact = ball_projections(scan)
    assert y.shape == scan.shape
    assert np.abs(y - exact).mean() < 0.025 * exact.max()
    assert y.sum() == pytest.approx(exact.sum(), rel=0.02)


@pytest.mark.parametrize("beam", BEAMS)
def test_finer_is_closer(beam):
    errors = []
    for oversample in (1, 3):
        scan, y = simulated(beam, oversample)
        errors.append(np.abs(y - ball_projections(scan)).mean())
    assert errors[1] < errors[0]


@pytest.mark.parametrize("beam", BEAMS)
def test_views_come_in_blocks_without_a_seam(beam):
    _, many = simulated(beam, 1, views=16)
    scan, y = simulated(beam, 1, views=16)
    assert np.array_equal(many, y)
    A = np.concatenate(list(project(BALL, GRID, scan.select(slice(7, 10)), 1, Noise(), 0)))
    assert np.array_equal(A, y[:, 7:10])


@pytest.mark.parametrize("beam", ["cone", "fan", "parallel"])
@pytest.mark.parametrize("numbers", [{}, {"pixel_mm": 1.3}], ids=["default", "pixel"])
def test_the_detector_covers_the_object(beam, numbers):
    scan, y = simulated(beam, 1, views=12, **numbers)
    assert not y[:, :, [0, -1]].any()
    if beam == "cone":
        assert not y[[0, -1]].any()
    # Not wasteful: the shadow fills more than half of the width.
    columns = np.flatnonzero(y.any(axis=(0, 1)))
    assert np.ptp(columns) > 0.5 * scan.detector_shape[1]


def test_a_helix_sees_what_it_passes():
    scan = design_scan(Setup("helical", 60, arc_deg=1080.0), BALL, GRID, MU)
    heights = scan.source[:, 2]
    assert np.ptp(heights) > 2 * RADIUS
    assert coverage(GRID, scan).unseen < 0.5


@pytest.mark.parametrize("oversample", [1, 2])
def test_noise_does_not_depend_on_anything_but_seed_and_row(tmp_path, oversample):
    noise = Noise("poisson", 1e4)
    _, first = simulated("cone", oversample, noise, 3)
    _, second = simulated("cone", oversample, noise, 3)
    _, other = simulated("cone", oversample, noise, 4)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
    _, clean = simulated("cone", oversample)
    assert np.array_equal(first[2], noise.sampled(clean[2], 2, 3))


def test_files(tmp_path):
    fine, reference = phantom(VolumeGeometry((8, 12, 12), (20.0, 30.0, 30.0)), 2, 0, MU)
    grid = VolumeGeometry((8, 12, 12), (20.0, 30.0, 30.0))
    scan = design_scan(Setup("cone", 4), reference, grid, MU)
    header = ScanHeader(scan, grid, Noise("poisson", 1e5), MU, {"note": "x"})
    write_simulation(tmp_path / "s.zarr", tmp_path / "t.zarr", (fine, reference), header, 2, 1, False)
    assert np.array_equal(open_volume(tmp_path / "t.zarr").data[:], reference)
    stored = open_scan(tmp_path / "s.zarr")
    expected = np.concatenate(list(project(fine, grid, scan, 2, header.noise, 1)))
    assert np.array_equal(stored.projections[:], expected)
    assert stored.grid == open_volume(tmp_path / "t.zarr").geometry
    with pytest.raises(ConfigError, match="grid"):
        write_simulation(tmp_path / "s.zarr", tmp_path / "t.zarr", (fine, reference[1:]), header, 2, 1, True)


@pytest.mark.parametrize("oversample", [1, 2])
@pytest.mark.parametrize("voxel_mm", [None, 4.0, 1.5])
def test_prepare_keeps_the_object_about_its_own_middle(oversample, voxel_mm):
    off = VolumeGeometry(GRID.shape, GRID.voxel_zyx_mm, (50.0, 60.0, 70.0))
    fine, reference, grid = prepare(BALL, off, voxel_mm, oversample)
    assert grid.centre_xyz_mm == (0.0, 0.0, 0.0)
    assert fine.shape == tuple(oversample * n for n in grid.shape)
    n, (nz, ny, nx) = oversample, grid.shape
    np.testing.assert_allclose(reference, fine.reshape(nz, n, ny, n, nx, n).mean(axis=(1, 3, 5)), rtol=1e-5)
    mass = [array.sum(dtype=np.float64) * np.prod(g.voxel_zyx_mm) for array, g in ((BALL, GRID), (reference, grid))]
    assert mass[1] == pytest.approx(mass[0], rel=0.02)


def test_hounsfield_units():
    hu = np.array([-2000, -1000, 0, 1000], np.int16)
    np.testing.assert_allclose(attenuation(hu, 0.02), [-0.02, 0, 0.02, 0.04], rtol=1e-6)


def test_what_is_below_air_is_air_in_a_simulation():
    fine, reference, _ = prepare(np.where(BALL > 0, BALL, -0.01), GRID, None, 1)
    np.testing.assert_array_equal(fine, prepare(BALL, GRID, None, 1)[0])
    assert reference.min() == 0


def test_what_cannot_be_simulated():
    with pytest.raises(DataError, match="not finite"):
        prepare(np.where(BALL > 0, np.nan, 0), GRID, None, 1)
    with pytest.raises(ConfigError, match="oversample"):
        prepare(BALL, GRID, None, 0)
    with pytest.raises(DataError, match=r"empty.*HU"):
        design_scan(Setup("cone", 4), np.zeros(GRID.shape), GRID, MU)
    with pytest.raises(ConfigError, match="reaches"):
        design_scan(Setup("cone", 4, source_to_object_mm=5.0), BALL, GRID, MU)
    with pytest.raises(GeometryError, match="larger"):
        design_scan(Setup("cone", 4, source_to_object_mm=50.0, source_to_detector_mm=40.0), BALL, GRID, MU)
    with pytest.raises(ConfigError, match="views"):
        design_scan(Setup("cone", 0), BALL, GRID, MU)
