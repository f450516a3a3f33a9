"""Fault matrix, geometry (G1-G7), at the constructors, the check of a job and the engine."""

import warnings

import numpy as np
import pytest
from balls import FAR, GRID, MU, ball_projections, small_scan

from volrecon import engine
from volrecon.errors import ConfigError, GeometryError, GeometryWarning
from volrecon.geometry import VolumeGeometry, cone, coverage, fan
from volrecon.jobs import Job
from volrecon.phantoms.shapes import ball
from volrecon.projectors import projector
from volrecon.store import ScanHeader, write_scan

ANGLES = 2 * np.pi * np.arange(12) / 12
SMALL = {"detector_shape": (8, 8), "pixel_mm": 1.0, "angles": ANGLES}


@pytest.mark.parametrize(("sod", "sdd"), [(300.0, 200.0), (200.0, 200.0)])
def test_G1_the_detector_lies_behind_the_object(sod, sdd):
    with pytest.raises(GeometryError) as caught:
        cone(source_to_object_mm=sod, source_to_detector_mm=sdd, **SMALL)
    for text in (f"source_to_object_mm ({sod:g} mm)", f"source_to_detector_mm ({sdd:g} mm)"):
        assert text in str(caught.value)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
@pytest.mark.parametrize("name", ["source_to_object_mm", "source_to_detector_mm"])
def test_G1_no_distance(name, value):
    with pytest.raises(GeometryError, match=rf"{name} is {value} mm"):
        cone(**{**FAR, name: value}, **SMALL)


def test_G2_the_source_inside_the_volume(write_ball, tmp_path):
    write_ball(grid=None)
    grid = {"shape": (4, 400, 400), "voxel_mm": (1.0, 1.0, 1.0)}
    with pytest.raises(GeometryError, match=r"source of view \d+ is 200 mm.*bounding sphere of 282\.8"):
        engine.check(Job(scan="scan.zarr", out="run", grid=grid), tmp_path)


def test_G2_a_volume_that_no_ray_meets(write_ball, tmp_path):
    write_ball(grid=None)
    grid = {"shape": (4, 8, 8), "voxel_mm": (1.0, 1.0, 1.0), "centre_mm": (0.0, 0.0, 500.0)}
    with pytest.raises(GeometryError, match="100% of it is outside the beam"):
        engine.check(Job(scan="scan.zarr", out="run", grid=grid), tmp_path)


def test_G2_a_volume_partly_seen_warns_with_the_fraction(write_ball):
    tall = VolumeGeometry((80, 16, 16), (2.0, 2.0, 2.0))
    seen = coverage(tall, small_scan("cone"))
    # Half of the detector, demagnified, is 36 mm; the volume goes to 80 mm.
    assert seen.unseen == pytest.approx(1 - 36 / 80, abs=0.05)
    with pytest.warns(GeometryWarning, match=rf"{seen.unseen:.1%} of the volume is seen by no view"):
        engine.reconstruct(write_ball(), "fdk", grid=tall)


def test_G3_degrees_taken_for_radians():
    degrees = np.arange(0, 360, 10.0)
    with pytest.raises(GeometryError, match=r"350 radians, 55\.7 turns.*look like degrees.*trust_angles=True"):
        cone(**FAR, **{**SMALL, "angles": degrees})
    with warnings.catch_warnings(action="ignore"):
        assert cone(**FAR, **{**SMALL, "angles": degrees}, trust_angles=True).views == 36


@pytest.mark.parametrize("size", [0.0, -1.0, 1e-9, np.nan, np.inf])
def test_G4_pixels_and_voxels_of_no_size(size):
    with pytest.raises(GeometryError, match=r"detector pixel in v is .* mm"):
        cone(**FAR, **{**SMALL, "pixel_mm": size})
    with pytest.raises(GeometryError, match=r"voxel size in y is .* mm"):
        VolumeGeometry((4, 4, 4), (1.0, size, 1.0))


def test_G4_anisotropic_voxels_give_the_same_ball(write_ball):
    fine = engine.reconstruct(write_ball(), "fdk")
    flat = engine.reconstruct(write_ball("b.zarr"), "fdk", grid=VolumeGeometry((20, 8, 16), (2.0, 4.0, 2.0)))
    paired = fine.reshape(20, 8, 2, 16).mean(axis=2)
    assert np.abs(flat - paired).max() < 0.2 * MU
    assert np.abs(flat - paired).mean() < 0.02 * MU


@pytest.mark.parametrize("columns", [-3, 2])
@pytest.mark.parametrize("beam", ["cone", "fan"])
def test_G5_a_shifted_detector_rolls_the_projection(beam, columns):
    x = ball(GRID, (4.0, -3.0, 1.0), 6.0, MU)
    pixel = 3.0

    def project(offset: float) -> np.ndarray:
        if beam == "cone":
            scan = cone(**FAR, detector_shape=(20, 40), pixel_mm=pixel, angles=ANGLES, detector_offset_mm=(0.0, offset))
        else:
            scan = fan(**FAR, rows=20, columns=40, pixel_mm=pixel, angles=ANGLES, detector_offset_mm=offset)
        return projector(GRID, scan)(x)

    # A detector moved towards +u sees the same shadow at a lower column.
    np.testing.assert_allclose(project(columns * pixel), np.roll(project(0.0), -columns, axis=2), atol=1e-4)


def test_G5_the_sign_of_the_axis_shift(tmp_path):
    """An axis 4 mm towards +u puts a ball on the axis at the column of 4 mm times the magnification."""
    scan = cone(**FAR, detector_shape=(21, 41), pixel_mm=1.5, angles=ANGLES, axis_shift_mm=4.0)
    y = projector(GRID, scan)(ball(GRID, (0.0, 0.0, 0.0), 5.0, MU))
    mass = y.sum(axis=(0, 1))
    centre = (mass * np.arange(41)).sum() / mass.sum()
    assert centre == pytest.approx(20 + 4.0 * 1.5 / 1.5, abs=0.05)


@pytest.mark.parametrize("method", ["fdk", {"recipe": "sirt", "iterations": 5}], ids=["fdk", "sirt"])
def test_G6_a_detector_too_narrow(tmp_path, method):
    narrow = cone(**FAR, detector_shape=(36, 10), pixel_mm=3.0, angles=ANGLES)
    write_scan(tmp_path / "scan.zarr", ScanHeader(narrow, GRID), [ball_projections(narrow)])
    with pytest.warns(GeometryWarning, match=r"truncation: in \d+\.\d% of the views"):
        volume = engine.reconstruct(tmp_path / "scan.zarr", method)
    assert np.isfinite(volume).all()
    assert volume[10, 8, 8] == pytest.approx(MU, rel=0.3)


@pytest.mark.parametrize("beam", ["cone", "helical"])
def test_G7_cone_on_the_cpu(write_ball, tmp_path, beam):
    write_ball(beam=beam)
    job = Job(scan="scan.zarr", out="run", method={"recipe": "cgls", "iterations": 1})
    engine.run(engine.check(job, tmp_path))
    asked = job.model_copy(update={"out": "astra", "compute": job.compute.model_copy(update={"backend": "astra"})})
    with pytest.raises(ConfigError, match=r"(?i)cuda|gpu|not installed"):
        engine.run(engine.check(asked, tmp_path))
    assert not (tmp_path / "astra" / "volume.zarr").exists()


def test_G7_an_unknown_projector(write_ball, tmp_path):
    write_ball()
    job = Job(scan="scan.zarr", out="run", method="sirt", compute={"backend": "os.system"})
    with pytest.raises(ConfigError, match=r"'os\.system' is unknown; choose one of auto, joseph"):
        engine.run(engine.check(job, tmp_path))
