"""What filtered backprojection does to projections: closed forms and partitions of unity."""

import numpy as np
import pytest
from balls import FAR

from volrecon.geometry import cone, fan, parallel
from volrecon.solvers.filtering import _ramp, angular_weights, fan_angles, ramp_filtered, redundancy_weights

WINDOWS = ["ram-lak", "shepp-logan", "cosine", "hamming", "hann"]


def fan_scan(degrees: np.ndarray, columns: int = 33, offset: float = 0.0):
    angles = np.deg2rad(degrees)
    return fan(**FAR, columns=columns, pixel_mm=3.0, angles=angles, detector_offset_mm=offset)


def parallel_scan(degrees: np.ndarray):
    return parallel(detector_shape=(1, 33), pixel_mm=1.0, angles=np.deg2rad(degrees))


@pytest.mark.parametrize("spacing", [0.5, 2.0])
def test_the_ramp_is_the_frequency_and_almost_nothing_at_zero(spacing):
    length = 1024
    ramp = _ramp(length, spacing, "ram-lak", 1.0)
    k = np.arange(len(ramp))
    np.testing.assert_allclose(ramp[8:], (k / (length * spacing))[8:], rtol=0.02)
    # What is left at zero is the tail of 2 / (pi n s)^2 that the length cuts off.
    assert ramp[0] == pytest.approx(2 / (np.pi**2 * spacing * length), rel=0.01)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("cutoff", [1.0, 0.5])
def test_windows_are_1_at_zero_fall_and_end_at_the_cutoff(window, cutoff):
    shape = _ramp(1024, 1.0, window, cutoff)[1:] / _ramp(1024, 1.0, "ram-lak", 1.0)[1:]
    end = int(512 * cutoff)
    assert shape[0] == pytest.approx(1, abs=1e-3)
    assert (np.diff(shape[: end - 1]) <= 1e-6).all()
    assert not shape[end:].any()
    at_end = {"ram-lak": 1, "shepp-logan": 2 / np.pi, "cosine": 0, "hamming": 0.08, "hann": 0}[window]
    assert shape[end - 1] == pytest.approx(at_end, abs=1e-3)


def test_filtering_is_linear_and_scales_with_the_spacing():
    rows = np.random.default_rng(0).random((2, 3, 40)).astype(np.float32)
    one = ramp_filtered(rows, 1.0, "hann", 1.0)
    np.testing.assert_allclose(ramp_filtered(rows, 0.25, "hann", 1.0), 4 * one, rtol=1e-5)
    np.testing.assert_allclose(ramp_filtered(-2 * rows, 1.0, "hann", 1.0), -2 * one, rtol=1e-5)
    assert one.shape == rows.shape


def test_a_cosine_is_multiplied_by_its_frequency():
    u = np.arange(400) - 200
    f = 1 / 16
    rows = (np.cos(2 * np.pi * f * u) * np.exp(-((u / 60) ** 2))).astype(np.float32)[None]
    filtered = ramp_filtered(rows, 1.0, "ram-lak", 1.0)
    np.testing.assert_allclose(filtered[0, 150:250], f * rows[0, 150:250], atol=0.003)


def test_a_disc_filters_to_a_plateau():
    """The ramp-filtered chord lengths of a disc are 1/pi inside (its FBP over half a turn is then 1)."""
    u = np.arange(-40, 41.0)
    chords = 2 * np.sqrt(np.maximum(30.0**2 - u**2, 0)).astype(np.float32)[None]
    filtered = ramp_filtered(chords, 1.0, "hann", 1.0)[0]
    np.testing.assert_allclose(filtered[25:56], 1 / np.pi, rtol=0.01)


@pytest.mark.parametrize("start", [0.0, 77.0])
@pytest.mark.parametrize("sense", [1, -1])
def test_a_full_turn_adds_up(start, sense):
    degrees = start + sense * np.r_[np.arange(0, 180, 3.0), np.arange(180, 360, 6.0)]
    for scan in (fan_scan(degrees), parallel_scan(degrees)):
        weights, full = angular_weights(scan)
        assert full
        assert weights.sum() == pytest.approx(2 * np.pi)
        assert weights[10] == pytest.approx(np.deg2rad(3))
        assert weights[70] == pytest.approx(np.deg2rad(6))


def test_the_order_and_repetition_of_views_does_not_matter():
    degrees = np.random.default_rng(0).permutation(np.arange(0, 360, 5.0))
    assert angular_weights(fan_scan(degrees))[0].tolist() == pytest.approx([np.deg2rad(5)] * 72)
    with pytest.warns(UserWarning, match="repeat"):
        twice = fan_scan(np.r_[np.arange(0, 360, 5.0), 40.0])
    weights, _ = angular_weights(twice)
    assert weights.sum() == pytest.approx(2 * np.pi)
    assert weights[8] + weights[-1] == pytest.approx(np.deg2rad(5))


@pytest.mark.parametrize("start", [0.0, 250.0])
def test_half_a_turn_of_a_parallel_beam_adds_up(start):
    scan = parallel_scan(start + np.arange(0, 180, 4.0))
    weights, full = angular_weights(scan)
    assert not full
    assert weights.sum() == pytest.approx(np.pi)
    assert np.array_equal(redundancy_weights(scan, full), np.ones((45, 33)))


@pytest.mark.parametrize("arc", [200.0, 230.0, 280.0])
def test_a_short_scan_counts_every_line_once(arc):
    """w(beta, gamma) + w(beta + pi - 2 gamma, -gamma) = 1, and 1 where the conjugate ray was not measured."""
    degrees = 123.0 + np.arange(0, arc + 1e-9, 0.1)
    scan = fan_scan(degrees)
    each, full = angular_weights(scan)
    assert not full
    weights, gamma = redundancy_weights(scan, full), fan_angles(scan)
    np.testing.assert_allclose(gamma, -gamma[::-1], atol=1e-12)
    beta, end = np.deg2rad(degrees - 123.0), np.deg2rad(arc)
    checked = 0
    for column, g in enumerate(gamma):
        conjugate = np.mod(beta + np.pi - 2 * g, 2 * np.pi)
        inside = conjugate < end - 0.01
        other = np.interp(conjugate, beta, weights[:, -1 - column])
        np.testing.assert_allclose((weights[:, column] + other)[inside], 1, atol=5e-3)
        outside = (conjugate > end + 0.01) & (conjugate < 2 * np.pi - 0.01)
        np.testing.assert_allclose(weights[outside, column], 1, atol=1e-9)
        checked += int(inside.sum())
    assert checked > 1000
    assert each.sum() == pytest.approx(end, rel=1e-2)


@pytest.mark.parametrize("columns", [-9, -5, 5, 9])
def test_a_displaced_detector_counts_every_line_once(columns):
    """Over a full turn a column at u and its mirror at -u are the same line: together they weigh 2 halves."""
    scan = fan_scan(np.arange(0, 360, 5.0), columns=31, offset=3.0 * columns)
    weights = redundancy_weights(scan, True)[0] * 2
    position = np.arange(31) - 15 + columns
    of = dict(zip(position.tolist(), weights, strict=True))
    for u, w in of.items():
        if -u in of:
            assert w + of[-u] == pytest.approx(2)
        else:
            assert w == pytest.approx(2)
    assert np.ptp(weights) == pytest.approx(2, abs=1e-6)


def test_a_centred_detector_weighs_all_alike():
    assert np.array_equal(redundancy_weights(fan_scan(np.arange(0, 360, 5.0)), True), np.full((72, 33), 0.5))


def test_fan_angles_of_a_tall_cone_are_those_of_its_middle_plane():
    angles = np.deg2rad(np.arange(0, 360, 30.0))
    tall = cone(**FAR, detector_shape=(41, 33), pixel_mm=3.0, angles=angles)
    expected = np.arctan((np.arange(33) - 16) * 3.0 / 300.0)
    np.testing.assert_allclose(fan_angles(tall), expected, atol=1e-12)
    np.testing.assert_allclose(fan_angles(fan_scan(np.rad2deg(angles))), expected, atol=1e-12)
