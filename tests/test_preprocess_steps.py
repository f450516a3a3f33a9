"""Windows, binning, rings, and the way from files to a scan."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from balls import GRID, ball_projections, small_scan
from counted import DARK, GAIN, SCAN, counts_of, prepared, rng, smooth

from volrecon.errors import ConfigError, DataError, GeometryWarning
from volrecon.exchange import import_scan, preprocess_scan
from volrecon.formats import Counts, Hints, format_of
from volrecon.geometry import parallel
from volrecon.noise import Noise
from volrecon.preprocess import Preparation, Prepared, agreed_counts, read_counts
from volrecon.preprocess.gaps import interpolated
from volrecon.preprocess.rings import without_rings
from volrecon.preprocess.window import Window
from volrecon.store import ScanHeader, open_scan, write_scan

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
    stripes[[0, 199]] = 0.1
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
