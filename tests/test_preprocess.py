"""Counts to line integrals, dead pixels and empty columns: closed forms, and nothing unreported."""

import numpy as np
import pytest
from counted import DARK, GAIN, SCAN, counts_of, open_beam, prepared, rng, smooth

from volrecon.errors import ConfigError, DataError
from volrecon.formats import Counts
from volrecon.geometry import parallel
from volrecon.preprocess import Preparation, Prepared, prepare


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


@pytest.mark.parametrize(("piece", "block"), [(1, 1), (10**9, 1), (2 * 8 * 20 * 40 * 2, 1), (1, 10**9)], ids=str)
def test_block_sizes_do_not_matter(monkeypatch, piece, block):
    raw, asked = counts_of(smooth()), {"rings": 5, "empty": ((0, 4), (36, 40)), "bin_vu": (2, 1)}
    whole, done = prepared(raw, open_beam(), **asked)
    monkeypatch.setattr(prepare, "READ_BYTES", piece)
    monkeypatch.setattr(prepare, "BLOCK_BYTES", block)
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
