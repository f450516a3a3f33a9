"""Defects that a reading of the code found once, each with its test."""

import numpy as np
import pytest
from balls import small_scan

from volrecon.errors import ConfigError
from volrecon.geometry import VolumeGeometry, cone, coverage, parallel
from volrecon.simulate import Setup, design_scan
from volrecon.solvers import METHODS
from volrecon.solvers.filtering import angular_weights
from volrecon.store import ScanHeader, open_scan, verify, write_scan

GRID = VolumeGeometry((16, 16, 16), (1.0, 1.0, 1.0))
CONE = {"source_to_object_mm": 60.0, "source_to_detector_mm": 90.0, "detector_shape": (18, 26), "pixel_mm": 1.5}


def test_a_chunk_of_masked_pixels_is_stored(tmp_path, monkeypatch):
    """All NaN, the fill value: it must not look like a chunk that was never written."""
    monkeypatch.setattr("volrecon.store.scans.CHUNK_SLICES", 1)
    scan = parallel(detector_shape=(40, 8), pixel_mm=1.0, angles=[0.0, 0.5])
    y = np.ones(scan.shape, np.float32)
    y[7] = np.nan
    assert write_scan(tmp_path / "scan.zarr", ScanHeader(scan), [y], bad_pixels="mask") == 16
    stored = open_scan(tmp_path / "scan.zarr").projections
    assert np.isnan(stored[7:8]).all()
    assert not np.isnan(stored[8:40]).any()
    assert list(verify(tmp_path / "scan.zarr")) == []


def test_fdk_refuses_a_detector_on_its_side_or_wandering():
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    fdk = METHODS["fdk"]()
    fdk.check(cone(**CONE, angles=angles, tilt=(0.02, 0.05, 0.0)), GRID, "auto")
    with pytest.raises(ConfigError, match="rows across the axis"):
        fdk.check(cone(**CONE, angles=angles, tilt=(np.pi / 2, 0.0, 0.0)), GRID, "auto")
    straight = cone(**CONE, angles=angles)
    vectors = straight.vectors.copy()
    vectors[3, 3:6] += 5.0 * vectors[3, 6:9]
    with pytest.raises(ConfigError, match="one detector position"):
        fdk.check(type(straight)("cone", straight.detector_shape, vectors), GRID, "auto")


@pytest.mark.parametrize("views", [3, 4, 5, 6, 8, 20])
def test_few_parallel_views_over_half_a_turn_weigh_alike(views):
    scan = parallel(detector_shape=(1, 9), pixel_mm=1.0, angles=np.pi * np.arange(views) / views)
    each, full_turn = angular_weights(scan)
    assert not full_turn
    assert np.allclose(each, np.pi / views)


def test_six_views_of_a_short_scan_are_no_full_turn():
    scan = cone(**CONE, angles=np.deg2rad(40.0) * np.arange(6))
    each, full_turn = angular_weights(scan)
    assert not full_turn
    assert np.allclose(each, np.deg2rad(40.0))


def test_the_default_helix_sees_the_whole_object():
    reference = np.zeros((60, 16, 16), np.float32)
    reference[2:-2, 3:-3, 3:-3] = 0.02
    grid = VolumeGeometry(reference.shape, (1.0, 1.0, 1.0))
    scan = design_scan(Setup("helical", 120), reference, grid, 0.02)
    assert coverage(grid, scan).unseen < 0.01


@pytest.mark.parametrize(
    ("method", "beam", "backend"), [("fdk", "fan", "auto"), ("fbp", "cone", "auto"), ("tv", "cone", "astra")]
)
def test_check_refuses_what_run_could_not_do(method, beam, backend):
    with pytest.raises(ConfigError):
        METHODS[method]().check(small_scan(beam), GRID, backend)
