"""Fixtures that several folders of tests use."""

import pytest
from balls import GRID, MU, ball_projections, small_scan

from volrecon.geometry import VolumeGeometry
from volrecon.noise import Noise
from volrecon.store import ScanHeader, write_scan


@pytest.fixture
def grid() -> VolumeGeometry:
    return GRID


@pytest.fixture
def write_ball(tmp_path):
    """Write the ball's scan: write_ball("scan.zarr", "fan", views=12, noise=..., edit=function of the array)."""

    def write(name="scan.zarr", beam="cone", views=24, noise=None, edit=None, bad_pixels="refuse", **header):
        scan = small_scan(beam, views)
        y = ball_projections(scan)
        if edit:
            y = edit(y)
        told = ScanHeader(scan, **{"grid": GRID, "noise": noise or Noise(), "water_per_mm": MU, **header})
        write_scan(tmp_path / name, told, [y], bad_pixels=bad_pixels)
        return tmp_path / name

    return write
