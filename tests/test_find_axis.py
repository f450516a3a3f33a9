"""Where the rotation axis is seen: known shifts of closed forms, real scans, and what cannot be found."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from volrecon.errors import DataError, GeometryError, GeometryWarning
from volrecon.formats import Hints, format_of, read_geometry
from volrecon.geometry import ScanGeometry, cone, fan, helical, parallel
from volrecon.phantoms import ball_line_integral
from volrecon.preprocess import Preparation, Prepared, find_axis
from volrecon.preprocess.middle_plane import axis_column, moved_axis
from volrecon.preprocess.window import Window

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("VOLRECON_DATA", ROOT.parent / "shared" / "data")) / "proj"
BALLS = (((10.0, -25.0, 0.0), 14.0), ((-30.0, 5.0, 3.0), 9.0), ((25.0, 20.0, -4.0), 6.0), ((-2.0, 3.0, 2.0), 4.0))
COLUMNS = 120


def turn(degrees: float, views: int, closed: bool = False) -> np.ndarray:
    return np.deg2rad(np.linspace(0, degrees, views, endpoint=closed))


def shadows(scan: ScanGeometry, noise: float = 0.0) -> np.ndarray:
    """Exact line integrals of a few balls, (v, angle, u), with a lot of noise if wanted."""
    rays = scan.rays()
    rows, columns = (np.arange(n) for n in scan.detector_shape)
    v, u = rows[:, None, None, None], columns[None, None, :, None]
    origin, direction = (
        rays[None, :, None, k] + u * rays[None, :, None, k + 1] + v * rays[None, :, None, k + 2] for k in (0, 3)
    )
    y = sum(ball_line_integral(origin, direction, centre, radius, 0.03) for centre, radius in BALLS)
    return (y + noise * np.random.default_rng(3).normal(size=y.shape)).astype(np.float32)


def parallel_scan(angles: np.ndarray) -> ScanGeometry:
    return parallel(detector_shape=(3, COLUMNS), pixel_mm=(3.0, 1.2), angles=angles)


def fan_scan(angles: np.ndarray) -> ScanGeometry:
    distances = {"source_to_object_mm": 250.0, "source_to_detector_mm": 400.0}
    return fan(**distances, columns=COLUMNS, pixel_mm=1.9, rows=3, row_pitch_mm=3.0, angles=angles)


def cone_scan(angles: np.ndarray, tilt: float = 0.0) -> ScanGeometry:
    distances = {"source_to_object_mm": 250.0, "source_to_detector_mm": 400.0}
    return cone(
        **distances,
        detector_shape=(9, COLUMNS),
        pixel_mm=1.9,
        angles=angles,
        detector_offset_mm=(2.0, 0.0),
        tilt=(tilt, 0, 0),
    )


SCANS = {
    "parallel 360": parallel_scan(turn(360, 90)),
    "parallel 180": parallel_scan(turn(180, 91, closed=True)),
    "parallel 180, open end": parallel_scan(turn(180, 90)),
    "parallel 180, clockwise": parallel_scan(-turn(180, 90)),
    "parallel 180, few": parallel_scan(turn(180, 30)),
    "parallel 200": parallel_scan(turn(200, 100)),
    "parallel, golden angle": parallel_scan(np.mod(np.arange(90) * np.pi * 0.6180339887, np.pi)),
    "fan 360": fan_scan(turn(360, 90)),
    "fan 360, few": fan_scan(turn(360, 40)),
    "fan, short": fan_scan(turn(230, 90)),
    "cone 360": cone_scan(turn(360, 90)),
    "cone 360, rolled": cone_scan(turn(360, 90), tilt=0.03),
    "cone, short": cone_scan(-turn(230, 90)),
}


@pytest.mark.parametrize("name", SCANS)
def test_a_known_shift_is_found(name):
    told = SCANS[name]
    for shift, noise in ((6.37, 0.0), (-17.8, 0.03)):
        true = axis_column(told) + shift
        found = find_axis(shadows(moved_axis(told, true), noise), told)
        assert found.column == pytest.approx(true, abs=0.3 if "few" in name else 0.15), shift
        assert abs(found.column - true) < 3 * found.error
        assert found.stated == pytest.approx(axis_column(told), abs=1e-6)
        assert found.doubts == ()


@pytest.mark.parametrize("name", ["fan 360", "cone 360, rolled", "parallel 180"])
def test_the_axis_is_where_it_was_put(name):
    """The column of a point on the axis is what `moved_axis` was told, and rolling the data is moving the axis."""
    scan = SCANS[name]
    moved = moved_axis(scan, 41.25)
    assert axis_column(moved) == pytest.approx(41.25, abs=1e-9)
    height = [0.0, 0.0, float(moved.source[0, 2]) if moved.beam == "cone" else 0.0, 1.0]
    forms = moved.pixel_forms() @ height
    np.testing.assert_allclose(forms[:, 0] / forms[:, 2], 41.25, atol=1e-6)
    y = shadows(scan)
    assert find_axis(np.roll(y, 3, axis=2), scan).column - find_axis(y, scan).column == pytest.approx(3, abs=0.01)


def test_the_axis_of_a_scan_shifted_at_the_axis():
    """`axis_shift_mm` of the geometry, seen on the detector; only nearly a shift of the detector."""
    distances = {"source_to_object_mm": 250.0, "source_to_detector_mm": 400.0}
    right, told = (
        fan(**distances, columns=COLUMNS, pixel_mm=1.9, axis_shift_mm=shift, angles=turn(360, 90))
        for shift in (5.0, 0.0)
    )
    found = find_axis(shadows(right), told)
    assert found.column == pytest.approx(axis_column(right), abs=0.1)
    assert (found.column - found.stated) * found.pixel_mm == pytest.approx(5.0, abs=0.2)


def test_a_displaced_or_truncated_detector():
    scan = SCANS["fan 360"]
    y = shadows(scan)
    for columns in ((45, 120), (30, 95)):
        part = Window.of(scan.detector_shape, columns=columns)
        found = find_axis(np.ascontiguousarray(y[:, :, slice(*columns)]), part.geometry(scan))
        assert part.to_detector(found.column) == pytest.approx(59.5, abs=0.1)


def test_stripes_do_not_attract_it():
    scan = parallel(detector_shape=(6, COLUMNS), pixel_mm=(2.0, 1.2), angles=turn(180, 90))
    stripes = 0.4 * np.random.default_rng(2).normal(size=(6, 1, COLUMNS)).astype(np.float32)
    moved = moved_axis(scan, 66.4)
    assert find_axis(shadows(moved) + stripes, scan).column == pytest.approx(66.4, abs=0.2)


def test_an_estimate_on_a_binned_window_is_told_in_columns_of_the_detector():
    scan = SCANS["parallel 180"]
    window = Window.of(scan.detector_shape, columns=(10, 120), bin_vu=(1, 2))
    y = window.sums(shadows(moved_axis(scan, 66.4))) / 2
    found = find_axis(y, window.geometry(scan))
    told = found.seen_through(window, COLUMNS)
    assert told.column == pytest.approx(66.4, abs=0.2)
    assert told.sharpest == pytest.approx(66.4, abs=1)
    assert (told.stated, told.width, told.error) == pytest.approx((59.5, COLUMNS, 2 * found.error))
    assert told.pixel_mm == pytest.approx(1.2)


def test_missing_values_are_bridged_and_nothing_is_changed():
    scan = SCANS["fan 360"]
    y = shadows(moved_axis(scan, 55.0))
    y[2, 5:30, 60:64] = np.nan
    y[1] = np.nan
    before = y.copy()
    assert find_axis(y, scan).column == pytest.approx(55, abs=0.1)
    assert np.array_equal(y, before, equal_nan=True)


def test_noise_alone_is_doubted():
    noise = np.random.default_rng(0).normal(size=(3, 90, COLUMNS)).astype(np.float32)
    found = find_axis(noise, SCANS["fan 360"])
    assert "little in common" in " ".join(found.doubts)
    assert "NOT SURE" in found.lines[1]


REFUSED = {
    "quarter turn": (parallel_scan(turn(90, 46)), "46 views over 88.04 deg"),
    "no half turn": (fan_scan(turn(170, 100)), "half a turn"),
    "one view": (parallel_scan(np.zeros(1)), "1 views"),
    "helix": (
        helical(
            source_to_object_mm=250.0,
            source_to_detector_mm=400.0,
            detector_shape=(20, COLUMNS),
            pixel_mm=1.9,
            angles=turn(720, 200),
            pitch_mm=20.0,
        ),
        "helix",
    ),
    "inclined": (parallel(detector_shape=(6, COLUMNS), pixel_mm=1.0, angles=turn(360, 90), elevation=0.3), "inclined"),
    "beside": (
        cone(
            source_to_object_mm=250.0,
            source_to_detector_mm=400.0,
            detector_shape=(20, COLUMNS),
            pixel_mm=1.9,
            angles=turn(360, 90),
            detector_offset_mm=(60.0, 0.0),
        ),
        "falls on row",
    ),
    "narrow": (parallel(detector_shape=(6, 12), pixel_mm=1.0, angles=turn(360, 90)), "12 columns"),
    "rolled": (cone_scan(turn(360, 90), tilt=0.5), "lean by"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_scans_without_opposite_rays_are_refused(name):
    scan, reason = REFUSED[name]
    with pytest.raises(GeometryError, match=f"state its column instead.*{reason}"):
        find_axis(np.ones(scan.shape, np.float32), scan)


def test_a_source_off_its_circle_is_refused():
    scan = SCANS["fan 360"]
    vectors = scan.vectors.copy()
    vectors[60, 3:6] += 8 * vectors[60, 6:9]
    with pytest.raises(GeometryError, match="leave their circle by 8"):
        find_axis(np.ones(scan.shape, np.float32), ScanGeometry(scan.beam, scan.detector_shape, vectors))


def test_nothing_to_see_is_refused():
    scan = SCANS["fan 360"]
    with pytest.raises(DataError, match="no edges"):
        find_axis(np.zeros(scan.shape, np.float32), scan)
    with pytest.raises(DataError, match="none of the 3 rows"):
        find_axis(np.full(scan.shape, np.nan, np.float32), scan)


def real(name: str, geometry: str, hints: Hints = Hints()):  # noqa: B008
    """Projections of a measured scan with the scan they state, or skip."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is missing; set VOLRECON_DATA")
    data = format_of(path).read_projections(path, hints)
    with warnings.catch_warnings(action="ignore", category=GeometryWarning):
        return data, read_geometry(ROOT / "configs" / "geometry" / geometry, data.frame).scan


@pytest.mark.parametrize(
    ("rows", "views"),
    [
        ((0, 135), slice(0, 91)),
        ((30, 60), slice(0, 91)),
        ((80, 110), slice(0, 90)),
        ((30, 60), slice(0, 91, 5)),
        ((125, 126), slice(0, 91)),
    ],
    ids=["all", "dim part", "one view short", "dim part, every 5th view", "one row"],
)
def test_savu_is_found_within_half_a_pixel(rows, views):
    data, scan = real("savu_parallel3d.npz", "savu.toml")
    asked = Preparation(empty=((0, 10),), rows=rows)
    prepared = Prepared(data.projections, scan, asked, data.counts)
    found = find_axis(prepared[0 : prepared.shape[0]][:, views], prepared.geometry.select(views))
    assert found.column == pytest.approx(86.0, abs=0.5)
    assert found.error < 0.3
    assert found.doubts == ()


@pytest.mark.parametrize("views", [slice(0, 721), slice(0, 721, 4), slice(0, 480)], ids=["all", "every 4th", "240 deg"])
def test_htc_shifts_are_found(views):
    data, scan = real("htc2022_ta_full.npz", "htc2022.toml")
    y = data.projections[:][:, views]
    scan = scan.select(views)
    found = find_axis(y, scan)
    assert found.column == pytest.approx(279.5, abs=0.25)  # the published geometry has it in the middle
    for shift in (3, -20):
        moved = find_axis(np.roll(y, shift, axis=2), scan)
        assert moved.column - found.column == pytest.approx(shift, abs=0.05)
    told = moved_axis(scan, 279.5 + 7.3)
    assert find_axis(y, told).column == pytest.approx(found.column, abs=0.05)
