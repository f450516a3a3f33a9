"""Fault matrix, raw data (D1-D7): at the import, the command line and the engine."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from balls import GRID, ball_projections, small_scan

from volrecon import engine
from volrecon.errors import ConfigError, DataError, GeometryError, GeometryWarning
from volrecon.exchange import import_scan, select_views
from volrecon.formats import Counts, Hints
from volrecon.geometry import ScanGeometry, cone
from volrecon.noise import Noise
from volrecon.store import ScanHeader, open_scan, write_scan

HINTS = Hints(axes="v,angle,u")
GEOMETRY = """
beam = "cone"
source_to_object_mm = 200
source_to_detector_mm = 300
[detector]
rows = 36
columns = 32
pixel_mm = 3
[angles]
unit = "deg"
step = 15
count = 24
"""


@pytest.fixture
def bring(tmp_path):
    """bring(array): import it with the geometry of `small_scan("cone")`."""

    def bring(array: np.ndarray, text: str = GEOMETRY, **options) -> Path:
        np.save(tmp_path / "y.npy", array)
        (tmp_path / "g.toml").write_text(text)
        import_scan(tmp_path / "y.npy", tmp_path / "g.toml", tmp_path / "scan.zarr", HINTS, **options)
        return tmp_path / "scan.zarr"

    return bring


def spoilt(where, value) -> np.ndarray:
    y = ball_projections(small_scan("cone"))
    y[where] = value
    return y


def test_the_geometry_is_that_of_the_other_tests(bring):
    scan = open_scan(bring(ball_projections(small_scan("cone"))))
    np.testing.assert_allclose(scan.geometry.vectors, small_scan("cone").vectors, atol=1e-9)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("where", "count", "first"),
    [((20, 5, 7), 1, (20, 5, 7)), ((33, 2), 32, (33, 2, 0)), (slice(None), 16 * 24 * 32, (0, 0, 0))],
    ids=["pixel", "row", "all"],
)
def test_D1_not_finite_is_refused_with_count_and_place(bring, tmp_path, value, where, count, first):
    with pytest.raises(DataError) as caught:
        bring(spoilt(where, value))
    assert str(caught.value).startswith(f"{count} projection values")
    assert str(first) in str(caught.value)
    assert not (tmp_path / "scan.zarr").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("method", ["fdk", {"recipe": "cgls", "iterations": 5}], ids=["fdk", "cgls"])
def test_D1_masked_pixels_are_counted_and_harmless(bring, tmp_path, value, method):
    y = spoilt((20, 5, 7), value)
    y[33, 2] = value
    path = bring(y, bad_pixels="mask")
    clean = ball_projections(small_scan("cone"))
    stored = open_scan(path).projections[:]
    assert np.isnan(stored).sum() == 33
    assert np.array_equal(stored[~np.isnan(stored)], clean[~np.isnan(stored)])
    with warnings.catch_warnings(action="ignore", category=GeometryWarning):
        masked = engine.reconstruct(path, method, GRID)
        write_scan(tmp_path / "clean.zarr", ScanHeader(small_scan("cone")), [clean])
        whole = engine.reconstruct(tmp_path / "clean.zarr", method, GRID)
    assert np.isfinite(masked).all()
    assert np.abs(masked - whole).max() < 0.15 * np.abs(whole).max()


@pytest.mark.parametrize(("rows", "fits"), [(1, True), (2, False), (36, False)])
def test_D1_more_than_a_twentieth_is_refused(bring, rows, fits):
    y = spoilt(slice(0, rows), np.nan)
    if fits:
        assert np.isnan(open_scan(bring(y, bad_pixels="mask")).projections[:]).sum() == rows * 24 * 32
        return
    with pytest.raises(DataError, match=rf"{rows * 24 * 32} of {36 * 24 * 32} pixels are masked; at most 5%"):
        bring(y, bad_pixels="mask")


@pytest.mark.parametrize("photons", [1, 5])
@pytest.mark.parametrize("electronic", [0.0, 50.0])
def test_D2_no_photons_left(photons, electronic):
    """Counts of zero, and negative ones after readout noise, meet a floor before the logarithm."""
    y = Noise("poisson", photons, electronic).sampled(np.full((200, 50), 12.0), 0, 0)
    assert np.isfinite(y).all()
    assert y.max() == pytest.approx(np.log(2 * photons), rel=1e-6)


DARK, WHITE = 100, 60_000


def counted(change=lambda raw: raw) -> np.ndarray:
    """What a 16-bit detector reads of the ball, (v, angle, u), spoilt by `change` before it is rounded."""
    light = np.exp(-ball_projections(small_scan("cone")).astype(np.float64))
    return change(DARK + (WHITE - DARK) * light)


def frames(**places) -> Counts:
    """Flats and darks of that detector; flats spoilt at (v, u) places."""
    flats = np.full((2, 36, 32), WHITE, np.float32)
    for place, value in places.get("flat", {}).items():
        flats[(slice(None), *place)] = value
    return Counts(flats, np.full((1, 36, 32), DARK, np.float32))


def test_D1_missing_counts_are_refused_or_masked(bring):
    def lose(raw):
        raw[20, 5, 7] = np.nan
        return raw

    with pytest.raises(DataError, match=r"1 projection values.*\(20, 5, 7\)"):
        bring(counted(lose), counts=frames())
    y = open_scan(bring(counted(lose), counts=frames(), bad_pixels="mask")).projections[:]
    assert np.argwhere(np.isnan(y)).tolist() == [[20, 5, 7]]


@pytest.mark.parametrize("dtype", [np.uint16, ">u2", np.int32, np.float64])
def test_D2_zero_and_negative_counts(bring, dtype):
    def starve(raw):
        raw[20, 5, 7], raw[3, 0, 0] = 0, DARK
        if np.dtype(dtype).kind in "if":
            raw[8] = -1e6
        return np.round(raw).astype(dtype)

    raw = counted(starve)
    before = raw.tobytes()
    scan = open_scan(bring(raw, counts=frames()))
    y = scan.projections[:]
    floor = -np.log(1e-4)
    assert y[20, 5, 7] == y[3, 0, 0] == y.max() == pytest.approx(floor, rel=1e-6)
    assert scan.provenance["preparation"][0]["done"]["clipped"] == (y == y.max()).sum()
    good = y < y.max()
    np.testing.assert_allclose(y[good], ball_projections(small_scan("cone"))[good], atol=2e-4)
    assert raw.tobytes() == before


def test_D3_flat_equals_dark(bring):
    flat = {(4, 9): DARK, (17, 0): DARK, (30, 31): np.nan}
    scan = open_scan(bring(counted(), counts=frames(flat=flat)))
    done = scan.provenance["preparation"][0]["done"]
    assert (done["dead_pixels"], done["filled"]) == (3, 3 * 24)
    np.testing.assert_allclose(scan.projections[:], ball_projections(small_scan("cone")), atol=0.05)
    with pytest.raises(DataError, match=r"1152 of 1152 pixels are dead.*swapped"):
        bring(counted(), counts=Counts(frames().darks, frames().flats))


def test_D3_flat_equals_dark_may_be_masked(bring):
    path = bring(counted(), counts=frames(flat={(4, 9): DARK}), bad_pixels="mask")
    y = open_scan(path).projections[:]
    assert np.isnan(y[4, :, 9]).all()
    assert np.isnan(y).sum() == 24


@pytest.mark.parametrize(
    "counts", [None, Counts(), Counts(darks=np.full((1, 36, 32), DARK))], ids=["not", "empty", "dark"]
)
def test_D3_missing_flats(bring, counts):
    with pytest.raises(DataError, match=r"y\.npy.*--flat FILE.*--white N"):
        bring(counted(), counts=counts)


def variants() -> dict[str, np.ndarray]:
    y = np.round(ball_projections(small_scan("cone")) * 100)
    wide = np.zeros((36, 24, 64), np.float32)
    wide[:, :, ::2] = y
    read_only = y.copy()
    read_only.setflags(write=False)
    return {
        "uint8": y.astype(np.uint8),
        "int16": y.astype(np.int16),
        "big-endian": y.astype(">f4"),
        "float64": y.astype(np.float64),
        "float16": y.astype(np.float16),
        "fortran": np.asfortranarray(y),
        "negative stride": y[::-1].copy()[::-1],
        "strided": wide[:, :, ::2],
        "read-only": read_only,
    }


@pytest.mark.parametrize("name", variants())
def test_D4_any_layout(bring, tmp_path, name):
    array = variants()[name]
    expected, before = array.astype(np.float32), array.tobytes()
    assert np.array_equal(open_scan(bring(array)).projections[:], expected)
    write_scan(tmp_path / "direct.zarr", ScanHeader(small_scan("cone")), [array[:5], array[5:]])
    assert np.array_equal(open_scan(tmp_path / "direct.zarr").projections[:], expected)
    assert array.tobytes() == before


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [("count = 24", "count = 23", "(36, 23, 32)"), ("rows = 36", "rows = 32", "(32, 24, 32)")],
    ids=["angles", "detector"],
)
def test_D5_numbers_that_disagree(bring, old, new, found):
    with pytest.raises(DataError) as caught:
        bring(ball_projections(small_scan("cone")), GEOMETRY.replace(old, new))
    assert "(36, 24, 32)" in str(caught.value)
    assert found in str(caught.value)


def test_D6_no_angles():
    with pytest.raises(GeometryError, match="at least one"):
        cone(source_to_object_mm=2, source_to_detector_mm=3, detector_shape=(2, 2), pixel_mm=1, angles=[])
    with pytest.raises(GeometryError, match="no views"):
        ScanGeometry("cone", (2, 2), np.empty((0, 12)))


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (-1, 4)])
def test_D6_an_empty_detector(shape):
    with pytest.raises(GeometryError, match="at least 1"):
        cone(source_to_object_mm=2, source_to_detector_mm=3, detector_shape=shape, pixel_mm=1, angles=[0.0])


@pytest.mark.parametrize(
    "method", ["fdk", {"recipe": "sirt", "iterations": 9}, {"recipe": "tv", "iterations": 3}], ids=["fdk", "sirt", "tv"]
)
def test_D6_one_angle_works(write_ball, method):
    volume = engine.reconstruct(write_ball(views=1), method)
    assert np.isfinite(volume).all()
    assert volume.max() > 0


def test_D6_repeated_angles_are_allowed_with_a_warning(write_ball, tmp_path):
    with pytest.warns(GeometryWarning, match="1 of 3 angles repeat"):
        cone(source_to_object_mm=2, source_to_detector_mm=3, detector_shape=(2, 2), pixel_mm=1, angles=[0, 1, 1])
    twice = np.r_[np.arange(24), 5, 5]
    select_views(open_scan(write_ball()), twice, tmp_path / "twice.zarr")
    once, more = (engine.reconstruct(tmp_path / name, "fdk") for name in ("scan.zarr", "twice.zarr"))
    # Repeated views share their arc, so FDK counts them once.
    np.testing.assert_allclose(more, once, atol=0.02 * once.max())


@pytest.mark.parametrize("views", [[], [24], [-1], [0, 99]])
def test_D6_a_selection_of_nothing_or_of_views_that_are_not_there(write_ball, tmp_path, views):
    with pytest.raises(ConfigError, match=r"no views|24 views"):
        select_views(open_scan(write_ball()), np.array(views, dtype=int), tmp_path / "few.zarr")


@pytest.mark.parametrize(("scale", "guess"), [(60_000.0, "counts"), (-1000.0, "Hounsfield")])
def test_D7_counts_and_hounsfield_units(bring, scale, guess):
    y = np.full((36, 24, 32), scale, np.float32)
    with pytest.raises(DataError, match=rf"{guess}.*-log.*--flat FILE.*--white N.*--dark FILE"):
        bring(y)


def test_D7_an_open_beam_that_is_too_dim(bring):
    with pytest.raises(DataError, match=r"brighter than 1[01].* times the open beam"):
        bring(counted(), counts=Counts(white=5_500.0))


def test_D7_a_metal_ray_is_no_count(bring):
    y = spoilt((slice(None), slice(None), slice(0, 5)), 60.0)
    assert open_scan(bring(y)).projections[:].max() == 60
