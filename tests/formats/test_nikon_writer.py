"""Scans of ours as .xtekct: the same rays and images when they are read, and the right way up for everybody else."""

import numpy as np
import pytest
import tifffile

from tests.balls import ball_projections
from tests.nikon_scans import GEOMETRY, NIKON, ctdata, pixels_of, text
from volrecon.errors import ConfigError, DataError, ResourceError
from volrecon.formats import Hints, PixelGrid
from volrecon.geometry import ScanGeometry, cone, fan, helical, parallel


def circular(angles=None, **changes) -> ScanGeometry:
    """A scan of ours that sees the ball: rows upwards, columns to the right."""
    return cone(
        **{
            "source_to_object_mm": 200.0,
            "source_to_detector_mm": 300.0,
            "detector_shape": (36, 32),
            "pixel_mm": (2.9, 3.0),
        }
        | {"detector_offset_mm": (4.0, -6.0), "axis_shift_mm": 1.5}
        | changes,
        angles=np.linspace(0.3, 5.0, 7) if angles is None else angles,
    )


UNEVEN = np.deg2rad([0.0, 100.0, 30.0, 31.5, 200.0, 180.0, 359.0, 300.0])


@pytest.mark.parametrize(
    "scan",
    [
        circular(),
        circular(-np.linspace(0, 2 * np.pi, 9)[:-1]),
        circular(UNEVEN),
        circular(np.deg2rad([20.0])),
        circular(np.deg2rad([0.0, 180.0, 0.5, 180.5])),
        circular(np.deg2rad(137.5) * np.arange(9) % (2 * np.pi)),
        circular(tilt=(np.pi, 0.0, 0.0)),
        circular(tilt=(0.0, 0.0, 0.01)),
    ],
    ids=["steps", "clockwise", "uneven", "one", "opposite", "golden angle", "Nikon's own order", "turned about v"],
)
def test_written_scans_have_the_same_rays_and_images(tmp_path, scan):
    """The ball's exact line integrals come back, as those of the scan that is read, which is the same."""
    path = tmp_path / "out.xtekct"
    GEOMETRY.write(path, scan)
    values = ball_projections(scan)
    NIKON.write_projections(path, values.swapaxes(0, 1), values.shape, PixelGrid(scan.pixel_vu_mm))
    data = NIKON.read_projections(path, Hints())
    back = data.stated.scan
    np.testing.assert_allclose(back.vectors, scan.vectors, rtol=0, atol=1e-9)
    integrals = -np.log(data.projections[:].astype(np.float64) / data.counts.white)
    np.testing.assert_allclose(integrals, ball_projections(back), atol=1e-6)
    np.testing.assert_array_equal(data.projections[5:9], data.projections[:][5:9])
    assert values.max() > 0.3
    assert data.projections.dtype == np.float32


def test_third_parties_see_the_top_row_first_and_columns_to_the_left(tmp_path):
    """With the source at -y, what is above is in the first rows and what is at +x in the first columns."""
    scan = circular(np.array([0.0]), detector_offset_mm=(0.0, 0.0), axis_shift_mm=0.0)
    path = tmp_path / "out.xtekct"
    GEOMETRY.write(path, scan)
    view = np.zeros(scan.detector_shape, np.float32)
    rows, columns = pixels_of(scan, np.array([[8.0, 0.0, 11.0]]))
    view[round(float(rows[0, 0])), round(float(columns[0, 0]))] = 1
    NIKON.write_projections(path, [view], scan.shape, PixelGrid(scan.pixel_vu_mm))
    image = tifffile.imread(tmp_path / "out_0001.tif")
    row, column = np.unravel_index(image.argmin(), image.shape)
    assert row < 17
    assert column < 15
    np.testing.assert_allclose(image.min(), 60_000 * np.exp(-1), rtol=1e-6)
    keys = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
    assert float(keys["InitialAngle"]) == 180
    assert keys["RowsReversed"] == keys["ColumnsReversed"] == "True"


def test_a_fan_of_one_row_is_written(tmp_path):
    scan = fan(
        source_to_object_mm=100, source_to_detector_mm=400, columns=9, pixel_mm=0.4, row_pitch_mm=0.3, angles=UNEVEN,
        axis_shift_mm=0.2, detector_offset_mm=1.0,
    )  # fmt: skip
    GEOMETRY.write(tmp_path / "a.xtekct", scan)
    back = GEOMETRY.read(tmp_path / "a.xtekct", None).scan
    assert back.beam == "fan"
    np.testing.assert_allclose(back.vectors, scan.vectors, atol=1e-9)


def moved(scan, column, by, view=3) -> ScanGeometry:
    vectors = scan.vectors.copy()
    vectors[view, column] += by
    return ScanGeometry(scan.beam, scan.detector_shape, vectors)


@pytest.mark.parametrize(
    ("scan", "message"),
    [
        (circular(tilt=(0.01, 0.0, 0.0)), "detector of view 0 is tilted by 0.0141 rad"),
        (circular(tilt=(0.0, 0.01, 0.0)), "is tilted by 0.01 rad"),
        (moved(circular(), 0, 0.5), "in view 3"),
        (moved(circular(), 5, 0.5), "the detector's height in mm is .* in view 3"),
        (moved(circular(), 11, 0.1), "the step of a row in mm is 3 in view 3"),
        (moved(circular(), slice(6, 12), -0.1), "tilted"),
        (moved(circular(), [2, 5], 0.5, view=slice(None)), "the source is at z = 0.5 mm"),
        (parallel(detector_shape=(4, 4), pixel_mm=1.0, angles=[0.0, 1.0]), "not a parallel|parallel beam"),
        (fan(source_to_object_mm=100, source_to_detector_mm=400, columns=9, pixel_mm=0.4, rows=2, angles=[0.0]), "fan"),
        (
            helical(
                source_to_object_mm=100, source_to_detector_mm=400, detector_shape=(4, 4), pixel_mm=1, angles=UNEVEN,
                pitch_mm=5.0,
            ),
            "height of the source",
        ),
    ],
)  # fmt: skip
def test_scans_that_an_xtekct_cannot_state_are_refused(tmp_path, scan, message):
    with pytest.raises(ConfigError, match=message) as caught:
        GEOMETRY.write(tmp_path / "a.xtekct", scan)
    assert "a.xtekct" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_scan_of_equal_steps_is_not_written_beside_other_angles(tmp_path):
    (tmp_path / "_ctdata.txt").write_text(ctdata())
    with pytest.raises(ConfigError, match=r"_ctdata\.txt would be read as the angles of a\.xtekct"):
        GEOMETRY.write(tmp_path / "a.xtekct", circular())
    GEOMETRY.write(tmp_path / "a.xtekct", circular(UNEVEN))
    check = GEOMETRY.read(tmp_path / "a.xtekct", None).scan.vectors[:, :6]
    np.testing.assert_allclose(check, circular(UNEVEN).vectors[:, :6], atol=1e-9)


def test_places_and_names_that_cannot_be_written(tmp_path):
    with pytest.raises(ResourceError, match="cannot be written"):
        GEOMETRY.write(tmp_path / "absent" / "a.xtekct", circular())
    with pytest.raises(DataError, match="only a plain file name"):
        GEOMETRY.write(tmp_path / "a\n.xtekct", circular())


def test_projections_follow_the_geometry_beside_them(tmp_path):
    scan = circular()
    path, pixels = tmp_path / "a.xtekct", PixelGrid(scan.pixel_vu_mm)
    values = ball_projections(scan)
    views = values.swapaxes(0, 1).copy()
    with pytest.raises(ConfigError, match="write the geometry before"):
        NIKON.write_projections(path, views, values.shape, pixels)
    GEOMETRY.write(path, scan)
    with pytest.raises(ConfigError, match=r"states \(v, u, angle\) \(36, 32, 7\)"):
        NIKON.write_projections(path, views[:5], (36, 5, 32), pixels)
    with pytest.raises(ConfigError, match=r"3\.0 mm in u, not 2\.0"):
        NIKON.write_projections(path, views, values.shape, PixelGrid((2.9, 2.0)))
    with pytest.raises(DataError, match="only 5 views"):
        NIKON.write_projections(path, views[:5], values.shape, pixels)
    for wrong in (np.inf, -np.inf, 200.0, -100.0):
        views[2, 3, 4] = wrong
        with pytest.raises(DataError, match=r"a\.xtekct: view 2 has the line integral .*no float32 count"):
            NIKON.write_projections(path, views, values.shape, pixels)
    views[2, 3, 4] = np.nan
    NIKON.write_projections(path, views, values.shape, pixels)
    assert np.argwhere(np.isnan(NIKON.read_projections(path, Hints()).projections[:])).tolist() == [[3, 2, 4]]
    path.write_text(text())
    with pytest.raises(ConfigError, match=r"has no section \[volrecon\]"):
        NIKON.write_projections(path, views, values.shape, pixels)
