"""How far a volume is from a reference, in a stated data range, read slab by slab."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.ndimage import gaussian_filter

from volrecon.errors import ConfigError, DataError

SLAB_BYTES = 16 * 2**20
"""Of a volume that is read at once, unless a single slice has more."""

WINDOW_SIGMA, WINDOW_RADIUS = 1.5, 5
"""The 11-tap Gaussian window of SSIM."""

K1, K2 = 0.01, 0.03


class VolumeLike(Protocol):
    """Anything with a shape whose slices along axis 0 are numpy arrays: an array, a Zarr array, a memory map."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: slice, /) -> Any: ...


@dataclass(frozen=True)
class PlaneScore:
    """Scores of one family of planes.

    `psnr`: mean over all planes of the PSNR of a plane, in dB, without the planes that are identical; inf when all
    are. `ssim`: mean over `ssim_planes` planes; None when the planes are smaller than the window of 11.
    """

    psnr: float
    ssim: float | None
    ssim_planes: int


@dataclass(frozen=True)
class Comparison:
    """A volume against a reference. `rmse` and `max_abs_error` have the volume's unit, PSNR is in dB.

    `psnr` comes from the mean squared error of all voxels; the planes' own are means over planes (`PlaneScore`).
    """

    data_range: float
    psnr: float
    rmse: float
    max_abs_error: float
    axial: PlaneScore
    coronal: PlaneScore
    sagittal: PlaneScore


def psnr(reference: VolumeLike, volume: VolumeLike, data_range: float) -> float:
    """Peak signal-to-noise ratio 10 log10(data_range² / mean squared error) in dB; inf when identical.

    Args:
        reference, volume: of one shape, with any number of axes.
        data_range: the peak, in the volumes' unit, fixed by the caller and never taken from the data.

    Raises:
        ConfigError: `data_range` is not above 0.
        DataError: shapes that differ, no voxels, or values that are not finite.
    """
    _check(reference, volume, data_range)
    total, count = 0.0, 0
    for k, first, second in _slices(reference, volume):
        difference = _difference(first, second, k)
        total += float((difference * difference).sum())
        count += difference.size
    return _psnr(total / count, data_range)


def ssim(reference: np.ndarray, volume: np.ndarray, data_range: float) -> float | None:
    """Mean structural similarity of two slices (Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 13, 2004).

    Gaussian window of sigma 1.5 and 11 taps, K1 = 0.01, K2 = 0.03, population covariance; the mean is over the
    pixels whose window lies inside the slice, so a rim of 5 is left out. None when the slice is smaller than
    11 x 11, where no pixel is left.

    Args:
        reference, volume: two slices of one shape.
        data_range: as in `psnr`.

    Raises:
        ConfigError, DataError: as in `psnr`; arrays that are not 2D.
    """
    _check(reference, volume, data_range)
    if len(reference.shape) != 2:
        raise DataError(f"SSIM compares 2D slices; got shape {tuple(reference.shape)}")
    _difference(reference, volume, 0)
    return _ssim(reference, volume, data_range)


def compare(reference: VolumeLike, volume: VolumeLike, data_range: float, planes: int = 32) -> Comparison:
    """PSNR, RMSE, largest error and SSIM in the three orthogonal planes, in one pass over slabs of 16 slices.

    Axial SSIM uses every slice; coronal and sagittal SSIM at most `planes` evenly spaced planes, which are all
    that is kept in memory: 4 * planes * slices * (longer side) floats.

    Args:
        reference, volume: (z, y, x), of one shape.
        data_range: as in `psnr`.
        planes: at least 1.

    Raises:
        ConfigError, DataError: as in `psnr`; volumes that are not 3D.
    """
    _check(reference, volume, data_range)
    if len(reference.shape) != 3:
        raise DataError(f"expected volumes (z, y, x); got shape {tuple(reference.shape)}")
    depth, height, width = reference.shape
    rows, columns = spread(height, planes), spread(width, planes)
    coronal = np.empty((2, len(rows), depth, width), np.float32)
    sagittal = np.empty((2, len(columns), depth, height), np.float32)
    squares = np.zeros(depth), np.zeros(height), np.zeros(width)
    largest, axial = 0.0, []
    for k, first, second in _slices(reference, volume):
        difference = _difference(first, second, k)
        largest = max(largest, float(np.abs(difference).max()))
        difference *= difference
        squares[0][k] = difference.sum()
        squares[1][:] += difference.sum(axis=1)
        squares[2][:] += difference.sum(axis=0)
        axial.append(_ssim(first, second, data_range))
        for side, values in enumerate((first, second)):
            coronal[side, :, k], sagittal[side, :, k] = values[rows], values[:, columns].T
    size = depth * height * width
    mean_square = float(squares[0].sum()) / size
    families = (axial, _ssim_of(coronal, data_range), _ssim_of(sagittal, data_range))
    scores = [
        _plane_score(total * (len(total) / size), similar, data_range)
        for total, similar in zip(squares, families, strict=True)
    ]
    return Comparison(data_range, _psnr(mean_square, data_range), math.sqrt(mean_square), largest, *scores)


def spread(count: int, planes: int) -> np.ndarray:
    """At most `planes` evenly spaced indices of `count`, each the middle of its share."""
    if planes < 1:
        raise ConfigError(f"planes is {planes}; it must be at least 1")
    chosen = min(count, planes)
    return (2 * np.arange(chosen) + 1) * count // (2 * chosen)


def gather_planes(volume: VolumeLike, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Planes across the slices of a (z, y, x) volume, in one pass over slabs.

    Returns:
        coronal (len(rows), z, x) at the y indices `rows`, sagittal (len(columns), z, y) at the x indices `columns`.
    """
    depth, height, width = volume.shape
    coronal = np.empty((len(rows), depth, width), np.float32)
    sagittal = np.empty((len(columns), depth, height), np.float32)
    step = _slices_at_once(volume.shape)
    for start in range(0, depth, step):
        stop = min(start + step, depth)
        slab = np.asarray(volume[start:stop])
        coronal[:, start:stop] = slab[:, rows].swapaxes(0, 1)
        sagittal[:, start:stop] = np.moveaxis(slab[:, :, columns], 2, 0)
    return coronal, sagittal


def _check(reference: VolumeLike, volume: VolumeLike, data_range: float) -> None:
    if not math.isfinite(data_range) or data_range <= 0:
        raise ConfigError(f"data_range is {data_range}; give the peak of the scale, above 0, in the volumes' unit")
    first, second = tuple(reference.shape), tuple(volume.shape)
    if first != second:
        raise DataError(f"the reference has shape {first} and the volume {second}; resample one onto the other")
    if not first or math.prod(first) == 0:
        raise DataError(f"there is nothing to compare in arrays of shape {first}")


def _slices(reference: VolumeLike, volume: VolumeLike) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(k, reference[k], volume[k]), read a slab at a time."""
    step = _slices_at_once(reference.shape)
    for start in range(0, reference.shape[0], step):
        slabs = (np.asarray(source[start : start + step]) for source in (reference, volume))
        for k, (first, second) in enumerate(zip(*slabs, strict=True), start):
            yield k, first, second


def _slices_at_once(shape: tuple[int, ...]) -> int:
    return max(1, SLAB_BYTES // max(4 * math.prod(shape[1:]), 1))


def _difference(reference: np.ndarray, volume: np.ndarray, k: int) -> np.ndarray:
    """volume - reference in float64, refused unless both are finite; `k` is the slice, for the message."""
    difference = np.subtract(volume, reference, dtype=np.float64)
    if not np.isfinite(difference).all():
        bad = {name: int((~np.isfinite(v)).sum()) for name, v in (("reference", reference), ("volume", volume))}
        raise DataError(f"slice {k} has values that are not finite: {bad}")
    return difference


def _psnr(mean_square: float, data_range: float) -> float:
    return math.inf if mean_square == 0 else 10 * math.log10(data_range**2 / mean_square)


def _plane_score(mean_squares: np.ndarray, similar: list[float | None], data_range: float) -> PlaneScore:
    differ = [_psnr(float(value), data_range) for value in mean_squares if value > 0]
    known = [value for value in similar if value is not None]
    return PlaneScore(
        psnr=float(np.mean(differ)) if differ else math.inf,
        ssim=float(np.mean(known)) if known else None,
        ssim_planes=len(known),
    )


def _ssim_of(planes: np.ndarray, data_range: float) -> list[float | None]:
    """SSIM of each pair in (2, planes, rows, columns)."""
    return [_ssim(first, second, data_range) for first, second in zip(*planes, strict=True)]


def _ssim(reference: np.ndarray, volume: np.ndarray, data_range: float) -> float | None:
    if min(reference.shape) < 2 * WINDOW_RADIUS + 1:
        return None
    x, y = reference.astype(np.float64), volume.astype(np.float64)
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x, variance_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    inner = slice(WINDOW_RADIUS, -WINDOW_RADIUS)
    return float((luminance * structure)[inner, inner].mean())


def _blur(image: np.ndarray) -> np.ndarray:
    return np.asarray(gaussian_filter(image, WINDOW_SIGMA, mode="reflect", radius=WINDOW_RADIUS))
