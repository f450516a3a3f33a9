"""A scan as geometry.toml: the numbers that a person would have written, or the vectors."""

import numpy as np
import pytest

from volrecon.formats import GEOMETRIES, read_geometry
from volrecon.geometry import ScanGeometry, cone, fan, from_vectors, helical, parallel
from volrecon.strict_toml import load_toml

FAR = {"source_to_object_mm": 500.0, "source_to_detector_mm": 1000.0}
ANGLES = np.radians(350 + 3.0 * np.arange(100))
STEPS = {"unit": "deg", "trust": True, "start": 350.0, "step": 3.0, "count": 100}


def written(path, scan: ScanGeometry) -> dict:
    GEOMETRIES["geometry.toml"].write(path, scan)
    again = read_geometry(path).scan
    assert (again.beam, again.shape) == (scan.beam, scan.shape)
    np.testing.assert_allclose(again.vectors, scan.vectors, rtol=0, atol=1e-9 * np.abs(scan.vectors).max())
    return load_toml(path)


def test_cone(tmp_path):
    scan = cone(
        **FAR,
        detector_shape=(8, 10),
        pixel_mm=(0.4, 0.5),
        angles=ANGLES,
        detector_offset_mm=(1.0, -2.0),
        axis_shift_mm=0.7,
    )
    assert written(tmp_path / "a.toml", scan) == {
        "beam": "cone",
        **FAR,
        "detector": {"rows": 8, "columns": 10, "pixel_mm": [0.4, 0.5], "offset_mm": [1.0, -2.0]},
        "axis": {"shift_mm": 0.7},
        "angles": STEPS,
    }
    assert [path.name for path in tmp_path.iterdir()] == ["a.toml"]


def test_fan(tmp_path):
    scan = fan(**FAR, columns=10, pixel_mm=0.5, rows=8, row_pitch_mm=2.0, angles=ANGLES, detector_offset_mm=3.0)
    table = written(tmp_path / "a.toml", scan)
    detector = {"rows": 8, "columns": 10, "pixel_mm": 0.5, "row_pitch_mm": 2.0, "offset_mm": [0.0, 3.0]}
    assert table == {"beam": "fan", **FAR, "detector": detector, "axis": {"shift_mm": 0.0}, "angles": STEPS}


def test_parallel(tmp_path):
    # The axis' shift and the detector's offset along u are one number.
    scan = parallel(detector_shape=(8, 10), pixel_mm=0.5, angles=ANGLES, detector_offset_mm=(1.0, 2.0), axis_shift_mm=3)
    detector = {"rows": 8, "columns": 10, "pixel_mm": [0.5, 0.5], "offset_mm": [1.0, -1.0]}
    assert written(tmp_path / "a.toml", scan) == {"beam": "parallel", "detector": detector, "angles": STEPS}


@pytest.mark.parametrize("sense", [1, -1])
def test_helix(tmp_path, sense):
    angles = sense * np.radians(3.0 * np.arange(700))
    scan = helical(**FAR, detector_shape=(8, 10), pixel_mm=0.5, angles=angles, pitch_mm=12.5)
    table = written(tmp_path / "a.toml", scan)
    assert table["beam"] == "helical"
    assert table["helix"] == {"pitch_mm": 12.5}
    assert table["angles"] == {**STEPS, "start": 0.0, "step": sense * 3.0, "count": 700}


def test_angles_that_are_not_steps_are_listed(tmp_path):
    scan = cone(**FAR, detector_shape=(8, 10), pixel_mm=0.5, angles=np.radians([10.0, 300.0, 20.0, 100.0]))
    assert written(tmp_path / "a.toml", scan)["angles"]["list"] == [10.0, -60.0, 20.0, 100.0]
    one = cone(**FAR, detector_shape=(8, 10), pixel_mm=0.5, angles=[np.radians(10.0)])
    assert written(tmp_path / "a.toml", one)["angles"]["list"] == [10.0]


def test_repeated_and_narrow_angles_are_read_again_without_a_word(tmp_path):
    for degrees in (np.arange(40) * 0.01, np.zeros(3), np.arange(50) * 222.5):
        angles = np.radians(degrees)
        scan = cone(**FAR, detector_shape=(8, 10), pixel_mm=0.5, angles=angles, trust_angles=True)
        assert "vectors" not in written(tmp_path / "a.toml", scan)


@pytest.mark.parametrize("seed", range(3))
def test_anything_else_is_vectors(tmp_path, seed):
    scan = cone(**FAR, detector_shape=(8, 10), pixel_mm=0.5, angles=ANGLES, tilt=(0.02, 0.0, 0.01))
    moved = scan.vectors + np.random.default_rng(seed).normal(scale=1e-3, size=scan.vectors.shape)
    for exact in (scan, from_vectors("cone", (8, 10), moved)):
        table = written(tmp_path / "a.toml", exact)
        assert table == {
            "beam": "cone",
            "detector": {"rows": 8, "columns": 10},
            "vectors": {"file": "a.vectors.txt"},
        }
        assert read_geometry(tmp_path / "a.toml").scan == exact
