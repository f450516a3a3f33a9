"""Fixtures that several folders of tests use."""

import logging
import sys
import warnings

import pytest
from balls import GRID, MU, ball_projections, small_scan

from volrecon.cli import main
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


@pytest.fixture
def cli(tmp_path, monkeypatch, capfd):
    """cli("info", "scan.zarr", code=0): run a command in tmp_path; what it printed, errors included."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["volrecon", *map(str, arguments)])
        with warnings.catch_warnings(action="default"), pytest.raises(SystemExit) as caught:
            main()
        printed = "".join(capfd.readouterr())
        assert (caught.value.code or 0) == code, printed
        assert "Traceback" not in printed
        return printed

    return call


@pytest.fixture
def info(cli, monkeypatch):
    """info("scan.zarr", code=0): the command, as `cli` runs it; it always prints something."""
    # nibabel's logger writes to the standard error of the first test that imported it.
    monkeypatch.setattr(logging, "raiseExceptions", False)

    def call(*arguments, code=0):
        printed = cli("info", *arguments, code=code)
        assert printed.strip()
        return printed

    return call
