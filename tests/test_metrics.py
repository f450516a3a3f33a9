"""PSNR and SSIM against scikit-image and by hand; volumes that are only sliced along axis 0."""

import math

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from volrecon.errors import ConfigError, DataError
from volrecon.metrics import compare, gather_planes, psnr, spread, ssim


class Stored:
    """A volume on disk, as far as metrics may know: a shape, and slabs along axis 0."""

    def __init__(self, array):
        self.array, self.shape, self.reads = array, array.shape, []

    def __getitem__(self, rows):
        assert isinstance(rows, slice)
        assert rows.step is None
        self.reads.append((rows.start, rows.stop))
        return self.array[rows]


def pair(shape, seed=0, noise=0.05):
    rng = np.random.default_rng(seed)
    reference = np.cumsum(rng.standard_normal(shape), axis=-1).astype(np.float32)
    reference = (reference - reference.min()) / np.ptp(reference)
    return reference, reference + noise * rng.standard_normal(shape).astype(np.float32)


def skimage_ssim(a, b, data_range):
    return structural_similarity(
        a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=data_range
    )


@pytest.mark.parametrize("shape", [(11, 11), (40, 53), (64, 12)])
@pytest.mark.parametrize("data_range", [0.04, 1.0, 2.5])
def test_ssim_is_scikit_images(shape, data_range):
    a, b = (data_range * image for image in pair(shape))
    assert ssim(a, b, data_range) == pytest.approx(skimage_ssim(a, b, data_range), abs=1e-5)


def test_ssim_of_flat_and_identical_slices():
    flat = np.zeros((20, 20), np.float32)
    assert ssim(flat, flat, 1.0) == pytest.approx(1)
    assert ssim(flat, flat + 1, 1.0) == pytest.approx(skimage_ssim(flat, flat + 1, 1.0), abs=1e-6)


def test_ssim_of_a_slice_smaller_than_its_window_is_none():
    assert ssim(*pair((10, 40)), 1.0) is None


def test_psnr_is_scikit_images_for_any_number_of_axes():
    for shape in ((50,), (20, 30), (37, 12, 13)):
        a, b = pair(shape)
        assert psnr(a, b, 0.7) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=0.7), abs=1e-4)


def test_identical_volumes():
    a, _ = pair((12, 13, 14))
    result = compare(a, a.copy(), 1.0)
    assert psnr(a, a, 1.0) == math.inf
    assert (result.psnr, result.rmse, result.max_abs_error) == (math.inf, 0, 0)
    for plane in (result.axial, result.coronal, result.sagittal):
        assert plane.psnr == math.inf
        assert plane.ssim == pytest.approx(1)


def test_compare_by_hand():
    a, b = pair((35, 21, 26))
    result = compare(Stored(a), Stored(b), 0.8, planes=9)
    error = b.astype(float) - a
    assert result.rmse == pytest.approx(math.sqrt((error**2).mean()))
    assert result.max_abs_error == pytest.approx(np.abs(error).max())
    assert result.psnr == pytest.approx(psnr(a, b, 0.8), abs=1e-9)
    chosen = (np.arange(35), spread(21, 9), spread(26, 9))
    for axis, score in enumerate((result.axial, result.coronal, result.sagittal)):
        others = tuple({0, 1, 2} - {axis})
        by_plane = 10 * np.log10(0.8**2 / (error**2).mean(axis=others))
        assert score.psnr == pytest.approx(by_plane.mean(), abs=1e-9)
        similar = [ssim(a.take(i, axis), b.take(i, axis), 0.8) for i in chosen[axis]]
        assert score.ssim == pytest.approx(np.mean(similar), abs=1e-6)
        assert score.ssim_planes == len(chosen[axis])


def test_planes_that_are_identical_do_not_enter_the_mean():
    a = np.zeros((12, 12, 12), np.float32)
    b = a.copy()
    b[3] = 0.1
    assert compare(a, b, 1.0).axial.psnr == pytest.approx(20)


def test_small_planes_have_no_ssim_but_a_psnr():
    result = compare(*pair((5, 30, 30)), 1.0)
    assert result.axial.ssim is not None
    assert (result.coronal.ssim, result.coronal.ssim_planes) == (None, 0)
    assert math.isfinite(result.sagittal.psnr)


def test_volumes_are_read_once_in_slabs(monkeypatch):
    monkeypatch.setattr("volrecon.metrics.SLAB_BYTES", 16 * 12 * 12 * 4)
    a, b = (Stored(array) for array in pair((40, 12, 12)))
    compare(a, b, 1.0)
    assert a.reads == b.reads == [(0, 16), (16, 32), (32, 48)]


def test_gathered_planes():
    a, _ = pair((20, 7, 9))
    coronal, sagittal = gather_planes(Stored(a), np.array([0, 5]), np.array([8, 2, 2]))
    np.testing.assert_array_equal(coronal, a[:, [0, 5]].swapaxes(0, 1))
    np.testing.assert_array_equal(sagittal, a[:, :, [8, 2, 2]].transpose(2, 0, 1))


def test_spread_is_even_and_central():
    assert spread(100, 4).tolist() == [12, 37, 62, 87]
    assert spread(3, 32).tolist() == [0, 1, 2]
    assert spread(9, 1).tolist() == [4]


@pytest.mark.parametrize("data_range", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("metric", [psnr, compare])
def test_a_data_range_that_is_none_is_refused(metric, data_range):
    with pytest.raises(ConfigError, match="data_range"):
        metric(*pair((12, 12, 12)), data_range)


def test_no_planes_are_refused():
    with pytest.raises(ConfigError, match="planes is 0"):
        compare(*pair((12, 12, 12)), 1.0, planes=0)


@pytest.mark.parametrize("metric", [psnr, compare])
def test_shapes_values_and_emptiness_are_checked(metric):
    a, b = pair((20, 12, 12))
    with pytest.raises(DataError, match=r"\(20, 12, 12\).*\(19, 12, 12\)"):
        metric(a, b[:19], 1.0)
    with pytest.raises(DataError, match="nothing to compare"):
        metric(a[:0], b[:0], 1.0)
    b[17, 3, 4] = np.nan
    with pytest.raises(DataError, match=r"slice 17 .*'volume': 1"):
        metric(a, b, 1.0)


def test_the_number_of_axes_is_checked():
    with pytest.raises(DataError, match="2D"):
        ssim(*pair((12, 12, 12)), 1.0)
    with pytest.raises(DataError, match=r"\(z, y, x\)"):
        compare(*pair((12, 12)), 1.0)
    a, b = pair((12, 12))
    b[0, 0] = np.inf
    with pytest.raises(DataError, match="not finite"):
        ssim(a, b, 1.0)
