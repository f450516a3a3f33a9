"""Counts to line integrals, windows, empty regions, dead pixels, rings: closed forms, and nothing unreported."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from balls import GRID, ball_projections, small_scan

from volrecon.errors import ConfigError, DataError, GeometryWarning
from volrecon.exchange import import_scan, preprocess_scan
from volrecon.formats import Counts, Hints, format_of
from volrecon.geometry import parallel
from volrecon.noise import Noise
from volrecon.preprocess import Preparation, Prepared, agreed_counts, prepare, read_counts
from volrecon.preprocess.gaps import interpolated
from volrecon.preprocess.rings import without_rings
from volrecon.preprocess.window import Window
from volrecon.store import ScanHeader, open_scan, write_scan

SCAN = parallel(detector_shape=(6, 40), pixel_mm=1.0, angles=np.arange(20) * np.pi / 20)


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def smooth() -> np.ndarray:
    """Line integrals (v, angle, u) that are 0 in the first and last five columns."""
    v, angle, u = np.ogrid[0:6, 0:20, 0:40]
    bump = np.sin(np.pi * np.clip((u - 4.5) / 30, 0, 1)) ** 2
    return (bump * (1 + 0.1 * v + 0.2 * np.cos(angle / 3))).astype(np.float32)


DARK = 90 + 5 * np.random.default_rng(1).random((6, 40))
GAIN = 40_000 + 5_000 * np.random.default_rng(2).random((6, 40))


def counts_of(y: np.ndarray) -> np.ndarray:
    return DARK[:, None] + GAIN[:, None] * np.exp(-y.astype(np.float64))


def open_beam(**changed) -> Counts:
    return Counts(**{"flats": (DARK + GAIN)[None], "darks": DARK[None], **changed})


def prepared(values: np.ndarray, counts: Counts | None = None, bad_pixels="refuse", **asked) -> tuple[np.ndarray, dict]:
    """All rows at once by way of `blocks`, and what the report's record says was done."""
    made = Prepared(values, SCAN, Preparation(**asked), counts, bad_pixels)
    rows = np.concatenate(list(made.blocks()))
    assert rows.shape == made.geometry.shape == made.shape
    assert np.array_equal(rows, made[0 : made.shape[0]], equal_nan=True)
    return rows, json.loads(json.dumps(made.report.record))["done"]


# Counts


def test_counts_are_turned_into_line_integrals():
    y, done = prepared(counts_of(smooth()), open_beam())
    np.testing.assert_allclose(y, smooth(), atol=1e-5)
    assert y.dtype == np.float32
    assert (done["values"], done["clipped"], done["dead_pixels"], done["not_finite"]) == (y.size, 0, 0, 0)


@pytest.mark.parametrize(
    "change",
    [
        lambda a: np.round(a).astype(np.uint16),
        lambda a: np.round(a).astype(">u2"),
        lambda a: np.round(a).astype(np.int32),
        lambda a: np.asfortranarray(np.round(a)),
        lambda a: np.round(a)[::-1].copy()[::-1],
    ],
    ids=["uint16", "big-endian", "int32", "fortran", "negative stride"],
)
def test_any_number_type_gives_the_same_and_is_not_changed(change):
    raw = change(counts_of(smooth()))
    raw.setflags(write=False)
    before = raw.tobytes()
    y, _ = prepared(raw, open_beam(), rings=5, empty=((0, 4),), bin_vu=(2, 2))
    expected, _ = prepared(np.round(counts_of(smooth())), open_beam(), rings=5, empty=((0, 4),), bin_vu=(2, 2))
    assert np.array_equal(y, expected)
    assert raw.tobytes() == before


def test_frames_are_averaged_and_a_white_level_stands_for_flats():
    flats = np.stack([DARK + GAIN * part for part in (0.9, 1.0, 1.1)])
    y, _ = prepared(counts_of(smooth()), Counts(flats, DARK[None]))
    np.testing.assert_allclose(y, smooth(), atol=1e-5)
    even = 100 + 50_000 * np.exp(-smooth())
    y, _ = prepared(even, Counts(darks=np.full((2, 6, 40), 100), white=50_100.0))
    np.testing.assert_allclose(y, smooth(), atol=1e-5)
    y, _ = prepared(50_000 * np.exp(-smooth()), Counts(white=50_000.0))
    np.testing.assert_allclose(y, smooth(), atol=1e-5)


def test_block_sizes_do_not_matter(monkeypatch):
    raw, asked = counts_of(smooth()), {"rings": 5, "empty": ((0, 4), (36, 40)), "bin_vu": (2, 1)}
    whole, done = prepared(raw, open_beam(), **asked)
    monkeypatch.setattr(prepare, "BLOCK_BYTES", 1)
    rows, again = prepared(raw, open_beam(), **asked)
    assert np.array_equal(whole, rows)
    assert {**done, "empty_transmission": 0, "rings_rms_change": 0} == {
        **again,
        "empty_transmission": 0,
        "rings_rms_change": 0,
    }
    np.testing.assert_allclose(again["empty_transmission"], done["empty_transmission"], atol=1e-6)


def test_D2_zero_and_negative_counts_are_raised_to_the_stated_floor_and_counted():
    raw = counts_of(smooth())
    raw[1, 3, 7], raw[2, 0, 9], raw[5, 19, 20] = 0, -1e6, DARK[5, 20]
    y, done = prepared(raw, open_beam())
    assert np.isfinite(y).all()
    assert done["clipped"] == 3
    np.testing.assert_allclose([y[1, 3, 7], y[2, 0, 9], y[5, 19, 20]], -np.log(1e-4), rtol=1e-6)
    assert (np.abs(y - smooth()) > 1e-4).sum() == 3
    halved, done = prepared(raw, open_beam(), lowest_transmission=0.5)
    assert halved.max() == pytest.approx(np.log(2))
    assert done["clipped"] == (np.minimum(y, 9) > np.log(2) + 1e-6).sum()


@pytest.mark.parametrize("how", ["equal", "nan", "below", "bright", "dim"])
def test_D3_dead_pixels_are_filled_along_u_and_counted(how):
    y = np.broadcast_to(0.01 * np.arange(40, dtype=np.float32), SCAN.shape)
    flats = (DARK + GAIN)[None].copy()
    dead = [(0, 0), (2, 11), (2, 12), (5, 39)]
    for place in dead:
        spoilt = {"equal": DARK[place], "nan": np.nan, "below": 0, "bright": 200_000, "dim": DARK[place] + 9_000}
        flats[0][place] = spoilt[how]
    out, done = prepared(counts_of(y), open_beam(flats=flats))
    assert (done["dead_pixels"], done["filled"], done["not_finite"]) == (4, 80, 0)
    expected = y.copy()
    expected[0, :, 0], expected[5, :, 39] = y[0, :, 1], y[5, :, 38]
    np.testing.assert_allclose(out, expected, atol=1e-5)
    masked, done = prepared(counts_of(y), open_beam(flats=flats), bad_pixels="mask")
    assert (done["filled"], done["not_finite"]) == (0, 80)
    assert all(np.isnan(masked[v, :, u]).all() for v, u in dead)


def test_D3_a_detector_gap_is_bridged_and_an_empty_row_refused():
    flats = (DARK + GAIN)[None].copy()
    flats[0, 3, 20:29] = 0
    out, done = prepared(counts_of(smooth()), open_beam(flats=flats))
    assert done["dead_pixels"] == 9
    line = np.interp(np.arange(20, 29), [19, 29], smooth()[3, 4, [19, 29]])
    np.testing.assert_allclose(out[3, 4, 20:29], line, atol=1e-5)
    tall = parallel(detector_shape=(40, 20), pixel_mm=1.0, angles=[0.0, 1.0])
    flat = np.ones((1, 40, 20))
    flat[0, 7] = 0
    with pytest.raises(DataError, match="1 rows have no live pixel, first 7"):
        Prepared(np.ones(tall.shape), tall, Preparation(), Counts(flat))
    assert Prepared(np.ones(tall.shape), tall, Preparation(rows=(8, 40)), Counts(flat)).shape == (32, 2, 20)
    masked = Prepared(np.ones(tall.shape), tall, Preparation(), Counts(flat), "mask")
    assert np.isnan(masked[0:40]).sum() == 40


def test_D3_too_many_dead_pixels_are_refused_with_numbers():
    with pytest.raises(DataError, match=r"240 of 240 pixels are dead.*swapped"):
        prepared(counts_of(smooth()), Counts(DARK[None], (DARK + GAIN)[None]))


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        (Counts(darks=DARK[None]), r"--flat FILE.*--white N"),
        (Counts(), r"--flat FILE"),
        (Counts(np.ones((1, 5, 40))), r"\(1, 5, 40\) \(frames, v, u\), the detector \(6, 40\)"),
        (Counts((DARK + GAIN)[None], np.ones((0, 6, 40))), r"darks have shape \(0, 6, 40\)"),
    ],
)
def test_D3_missing_or_wrong_flats(counts, reason):
    with pytest.raises(DataError, match=reason):
        prepared(counts_of(smooth()), counts)


# Empty columns


def drift(shape: tuple[int, int, int]) -> np.ndarray:
    return 0.5 + rng().random((shape[0], shape[1], 1))


def test_a_drifting_beam_is_levelled_by_empty_columns():
    light = np.exp(-smooth()) * drift(SCAN.shape)
    from_counts, done = prepared(DARK[:, None] + GAIN[:, None] * light, open_beam(), empty=((0, 5),))
    from_integrals, also = prepared(-np.log(light), empty=((0, 5),))
    np.testing.assert_allclose(from_counts, smooth(), atol=1e-4)
    np.testing.assert_allclose(from_integrals, smooth(), atol=1e-4)
    assert done["empty_transmission"] == pytest.approx(also["empty_transmission"], rel=1e-4)
    low, mean, high = done["empty_transmission"]
    assert (low, high) == pytest.approx((light[..., 0].min(), light[..., 0].max()), rel=1e-4)
    assert mean == pytest.approx(light[..., 0].mean(), rel=1e-4)


def test_two_ranges_level_a_beam_that_is_brighter_on_one_side():
    slope = 1 + 0.01 * np.arange(40)
    slope[:3], slope[37:] = slope[1], slope[38]  # flat where it is measured, so that the line between is exact
    y, _ = prepared(-np.log(np.exp(-smooth()) * drift(SCAN.shape) * slope), empty=((0, 3), (37, 40)))
    inside = slice(3, 37)
    np.testing.assert_allclose(y[..., inside], smooth()[..., inside], atol=1e-4)


def test_empty_columns_that_are_not_there_or_not_empty():
    with pytest.raises(ConfigError, match="40 columns"):
        prepared(smooth(), empty=((30, 41),))
    with pytest.raises(DataError, match=r"not empty.*0 in some view"):
        prepared(DARK[:, None] + 0 * counts_of(smooth()), open_beam(), empty=((0, 4),))


def test_dead_and_missing_pixels_do_not_count_as_air():
    raw = counts_of(smooth())
    raw[2, 5, 1] = np.nan
    flats = (DARK + GAIN)[None].copy()
    flats[0, 2, 0] = 0
    y, done = prepared(raw, open_beam(flats=flats), empty=((0, 4),))
    assert done["not_finite"] == 1
    assert np.isnan(y[2, 5, 1])
    y[2, 5, 1] = 0
    np.testing.assert_allclose(y, smooth(), atol=1e-4)


# Windows


@pytest.mark.parametrize("beam", ["cone", "fan", "parallel", "helical"])
def test_a_binned_cropped_pixel_lies_in_the_middle_of_its_block(beam):
    scan = small_scan(beam)
    window = Window.of(scan.detector_shape, (3, 18), (5, 32), (2, 3))
    small = window.geometry(scan)
    assert window.shape == small.detector_shape == (7, 9)
    assert (window.rows, window.columns) == ((3, 17), (5, 32))
    rays, blocks = scan.rays(), small.rays()
    for row, column in ((0, 0), (6, 8), (2, 5)):
        v, u = 3 + 2 * row + 0.5, window.to_detector(column)
        assert u == 5 + 3 * column + 1
        assert window.from_detector(u) == column
        for k in (0, 3):
            whole = rays[:, k] + u * rays[:, k + 1] + v * rays[:, k + 2]
            part = blocks[:, k] + column * blocks[:, k + 1] + row * blocks[:, k + 2]
            np.testing.assert_allclose(part, whole, atol=1e-9)


def test_counts_are_averaged_before_the_logarithm_and_line_integrals_as_they_are():
    light = np.tile([0.1, 0.9], 20) * np.ones(SCAN.shape)
    y, _ = prepared(DARK[:, None] + GAIN[:, None] * light, Counts((DARK + GAIN)[None], DARK[None]), bin_vu=(3, 1))
    np.testing.assert_allclose(y, np.broadcast_to(-np.log(light[:2]), y.shape), atol=1e-4)
    even = Counts(white=1000.0)
    assert prepared(1000 * light, even, bin_vu=(1, 2))[0] == pytest.approx(-np.log(0.5), abs=1e-5)
    assert prepared(-np.log(light), bin_vu=(1, 2))[0] == pytest.approx(-np.log(0.09) / 2, abs=1e-5)


def test_a_dead_pixel_is_left_out_of_its_block():
    flats = np.full((1, 6, 40), 1000.0)
    flats[0, 0, 4] = 0
    raw = 1000 * np.exp(-smooth())
    raw[0, :, 4] = 123
    y, done = prepared(raw, Counts(flats), bin_vu=(1, 2))
    np.testing.assert_allclose(y[0, :, 2], smooth()[0, :, 5], atol=1e-5)
    assert (done["dead_pixels"], done["filled"]) == (1, 0)


def test_a_crop_keeps_the_values():
    y, done = prepared(smooth(), rows=(1, 5), columns=(7, 30))
    assert np.array_equal(y, smooth()[1:5, :, 7:30])
    assert (done["kept_rows"], done["kept_columns"]) == ([1, 5], [7, 30])


@pytest.mark.parametrize(
    "asked",
    [
        {"rows": (0, 7)},
        {"rows": (3, 3)},
        {"columns": (50, 60)},
        {"rows": (0, 3), "bin_vu": (4, 1)},
        {"rings": 41},
    ],
    ids=str,
)
def test_windows_that_do_not_fit(asked):
    with pytest.raises(ConfigError):
        prepared(smooth(), **asked)


def test_photons_add_up_when_pixels_are_averaged():
    window = Window.of((6, 40), bin_vu=(2, 3))
    assert window.noise(Noise("poisson", 1e4, 5.0)) == Noise("poisson", 6e4, 5 * np.sqrt(6))
    assert window.noise(Noise("gaussian", sigma_y=0.6)).sigma_y == pytest.approx(0.6 / np.sqrt(6))
    assert window.noise(Noise()) == Noise()


# Rings


def test_stripes_are_removed_and_the_rest_is_kept():
    wide = np.sin(np.linspace(0, np.pi, 200)) ** 2 * (1 + 0.2 * np.cos(np.arange(90) / 9))[:, None]
    stripes = np.zeros(200)
    stripes[20:180:32], stripes[36:180:32] = 0.1, -0.1
    cleaned = without_rings((wide + stripes).astype(np.float32), 9)
    before, after = (np.sqrt(np.mean((image - wide) ** 2)) for image in (wide + stripes, cleaned))
    assert after < 0.3 * before
    assert np.abs(without_rings(wide.astype(np.float32), 9) - wide).max() < 0.01
    constant = np.broadcast_to(rng().random((90, 1)), (90, 200))
    assert np.array_equal(without_rings(constant, 9), constant)


def test_a_dense_bead_that_wanders_through_the_columns_is_no_stripe():
    place = 100 + 40 * np.cos(np.linspace(0, np.pi, 91, endpoint=False))
    bead = 3 * np.exp(-(((np.arange(200) - place[:, None]) / 4) ** 2))
    assert np.abs(without_rings(bead, 9) - bead).max() < 0.01


def test_rings_leave_missing_values_missing():
    y = smooth() + 0.05 * rng().choice([-1, 1], 40).astype(np.float32)
    y[1, 4, 9] = y[2, 7] = np.nan
    out, done = prepared(y, rings=5, bad_pixels="mask")
    assert np.array_equal(np.isnan(out), np.isnan(y))
    assert 0.01 < done["rings_rms_change"] < 0.07
    few = parallel(detector_shape=(6, 40), pixel_mm=1.0, angles=[0.0, 0.5])
    with pytest.raises(ConfigError, match="16 views"):
        Prepared(y[:, :2], few, Preparation(rings=5))


def test_gaps_are_bridged():
    row = np.array([np.nan, 1, np.nan, np.nan, 4, 4, np.nan])
    expected = np.array([1, 1, 2, 3, 4, 4, 4.0])
    np.testing.assert_allclose(interpolated(row), expected)
    rows = np.stack([row, np.full(7, np.nan), expected])
    out = interpolated(rows.astype(np.float32))
    assert np.array_equal(out, np.stack([expected, rows[1], expected]), equal_nan=True)


# Files


def imported(tmp_path: Path, raw: np.ndarray, **options) -> tuple[Path, list[str]]:
    np.save(tmp_path / "raw.npy", raw.swapaxes(0, 1))
    (tmp_path / "g.toml").write_text(
        'beam = "parallel"\n[detector]\nrows = 6\ncolumns = 40\npixel_mm = 1.0\n'
        '[angles]\nunit = "deg"\nstep = 9.0\ncount = 20\n'
    )
    out = tmp_path / "scan.zarr"
    hints = Hints(axes="angle,v,u")
    return out, import_scan(tmp_path / "raw.npy", tmp_path / "g.toml", out, hints, **options)


def test_flats_and_darks_in_files_of_their_own(tmp_path):
    np.save(tmp_path / "flat.npy", (DARK + GAIN).astype(np.float32))
    tifffile.imwrite(tmp_path / "dark.tif", np.stack([DARK - 1, DARK + 1]).astype(np.float32), photometric="minisblack")
    counts = read_counts(tmp_path / "flat.npy", tmp_path / "dark.tif", None)
    out, notes = imported(tmp_path, counts_of(smooth()), counts=counts)
    np.testing.assert_allclose(open_scan(out).projections[:], smooth(), atol=1e-4)
    told = "\n".join(notes)
    assert "flat: mean of 1 frame(s)" in told
    assert "0 of 4800 values" in told
    assert open_scan(out).provenance["preparation"][0]["done"]["clipped"] == 0


def test_options_for_the_open_beam_that_cannot_be(tmp_path):
    assert read_counts(None, None, None) is None
    np.save(tmp_path / "flat.npy", GAIN)
    with pytest.raises(ConfigError, match="given twice"):
        read_counts(tmp_path / "flat.npy", None, 6e4)
    np.save(tmp_path / "line.npy", np.ones(7))
    with pytest.raises(DataError, match=r"line\.npy"):
        read_counts(tmp_path / "line.npy", None, None)


def test_what_is_given_replaces_what_the_file_has():
    flats, darks = np.ones((1, 2, 2)), np.zeros((1, 2, 2))
    in_file = Counts(flats, darks, None)
    assert agreed_counts(in_file, None) is in_file
    assert agreed_counts(None, Counts(white=3.0)) == Counts(white=3.0)
    replaced = agreed_counts(in_file, Counts(white=3.0))
    assert (replaced.flats, replaced.darks is darks, replaced.white) == (None, True, 3.0)
    replaced = agreed_counts(Counts(white=3.0), Counts(flats, darks))
    assert (replaced.flats is flats, replaced.darks is darks, replaced.white) == (True, True, None)
    assert agreed_counts(Counts(white=3.0), Counts(darks=darks)).white == 3


def test_counts_in_an_npz_bring_their_own_flats(tmp_path):
    path = tmp_path / "counts.npz"
    raw = np.round(counts_of(smooth())).astype(np.uint16).swapaxes(0, 1)
    np.savez(path, raw=raw, flat=(DARK + GAIN).astype(np.float32), dark=DARK[None], theta_deg=np.arange(20) * 9.0)
    data = format_of(path).read_projections(path, Hints())
    assert data.projections.shape == SCAN.shape
    assert (data.counts.flats.shape, data.counts.darks.shape, data.counts.white) == ((1, 6, 40), (1, 6, 40), None)
    assert "flat and dark" in data.notes[-1]
    np.savez(path, raw=raw, white=np.array(5e4))
    assert format_of(path).read_projections(path, Hints()).counts == Counts(white=5e4)
    np.savez(path, raw=raw, flat=np.ones((2, 2, 6, 40)))
    with pytest.raises(DataError, match=r"counts\.npz.*\(2, 2, 6, 40\)"):
        format_of(path).read_projections(path, Hints())
    np.savez(path, raw=raw, white=np.ones(2))
    with pytest.raises(DataError, match="expected one number"):
        format_of(path).read_projections(path, Hints())


def test_the_axis_is_moved_and_remembered(tmp_path):
    out, notes = imported(tmp_path, smooth(), preparation=Preparation(axis=21.25, columns=(4, 40), bin_vu=(1, 2)))
    scan = open_scan(out)
    forms = scan.geometry.pixel_forms() @ [0, 0, 0, 1]
    np.testing.assert_allclose(forms[:, 0] / forms[:, 2], (21.25 - 4 + 0.5) / 2 - 0.5, atol=1e-9)
    assert scan.provenance["preparation"][0]["done"]["axis_moved_px"] == pytest.approx(1.75)
    assert "+1.750 pixels" in notes[-1]


def test_a_scan_is_prepared_further(tmp_path):
    y = ball_projections(small_scan("cone"))
    y[3, 4, 5] = np.nan
    header = ScanHeader(small_scan("cone"), GRID, noise=Noise("poisson", 1e4), provenance={"file": "ball"})
    write_scan(tmp_path / "scan.zarr", header, [y], bad_pixels="mask")
    first, second = tmp_path / "one.zarr", tmp_path / "two.zarr"
    preprocess_scan(open_scan(tmp_path / "scan.zarr"), first, Preparation(rows=(2, 36)))
    preprocess_scan(open_scan(first), second, Preparation(bin_vu=(2, 2)))
    preprocess_scan(open_scan(tmp_path / "scan.zarr"), tmp_path / "whole.zarr", Preparation(axis=15.0))
    assert open_scan(tmp_path / "whole.zarr").grid == GRID
    scan = open_scan(second)
    assert scan.geometry == Window.of((36, 32), (2, 36), None, (2, 2)).geometry(small_scan("cone"))
    mean = y[2:].reshape(17, 2, 24, 16, 2).mean(axis=(1, 4))
    np.testing.assert_allclose(scan.projections[:], mean, atol=1e-6)
    assert scan.noise.photons == 4e4
    assert scan.grid is None
    assert scan.provenance["file"] == "ball"
    assert [step["asked"] for step in scan.provenance["preparation"]] == [{"rows": [2, 36]}, {"bin_vu": [2, 2]}]


def test_an_unsure_axis_warns(tmp_path):
    with pytest.warns(GeometryWarning, match="rotation axis may be wrong"):
        imported(tmp_path, np.random.default_rng(2).random(SCAN.shape), preparation=Preparation(axis="find"))


def test_nothing_asked_changes_nothing(tmp_path):
    out, notes = imported(tmp_path, smooth())
    scan = open_scan(out)
    assert np.array_equal(scan.projections[:], smooth())
    assert "preparation" not in scan.provenance
    assert not any("axis at column" in note for note in notes)
