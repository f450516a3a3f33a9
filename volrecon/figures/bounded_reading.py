"""The parts of a large array that a picture needs, read a few rows at a time and never more than a stated amount."""

import math
from collections.abc import Iterator

import numpy as np

from volrecon.metrics import VolumeLike

MOST_BYTES = 2**30
"""What is read of an array for its cross-sections; of a larger one evenly spaced rows are read."""

LEAST_ROWS = 32
AT_ONCE = 64 * 2**20
LONGEST_SIDE = 2048
"""Values along a side of an image; a larger one is thinned, for no page has more pixels."""


def rows_to_read(array: VolumeLike) -> np.ndarray:
    """Ascending indices along axis 0: all of them, or as many evenly spaced ones as `MOST_BYTES` allow."""
    count = array.shape[0]
    return _evenly(count, max(LEAST_ROWS, MOST_BYTES // _row_bytes(array)))


def cross_sections(array: VolumeLike, rows: np.ndarray, along_1: np.ndarray, along_2: np.ndarray) -> tuple[
    np.ndarray, np.ndarray
]:  # fmt: skip
    """Planes across axis 0 of an array of three axes, in one pass over `rows`.

    Returns:
        (len(rows), len(along_1), n2) at the indices `along_1` of axis 1, (len(rows), n1, len(along_2)) of axis 2;
        float32.
    """
    blocks = [
        (block[:, along_1].astype(np.float32), block[:, :, along_2].astype(np.float32))
        for block in _blocks(array, rows)
    ]
    return np.concatenate([first for first, _ in blocks]), np.concatenate([second for _, second in blocks])


def middle_slice(array: VolumeLike) -> np.ndarray:
    """The middle plane along axis 0, float32, thinned."""
    middle = array.shape[0] // 2
    return thinned(np.asarray(array[middle : middle + 1])[0]).astype(np.float32)


def thinned(image: np.ndarray) -> np.ndarray:
    """Every n-th value along each side, so that none is longer than `LONGEST_SIDE`."""
    rows, columns = (_evenly(n, LONGEST_SIDE) for n in image.shape)
    return image[np.ix_(rows, columns)] if image.size > rows.size * columns.size else image


def _evenly(count: int, most: int) -> np.ndarray:
    return np.linspace(0, count - 1, min(count, most)).round().astype(int)


def _row_bytes(array: VolumeLike) -> int:
    return 4 * math.prod(array.shape[1:])


def _blocks(array: VolumeLike, rows: np.ndarray) -> Iterator[np.ndarray]:
    """The rows in their order, neighbours together as far as memory allows."""
    most = max(1, AT_ONCE // _row_bytes(array))
    for run in np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1):
        for start in range(int(run[0]), int(run[-1]) + 1, most):
            yield np.asarray(array[start : min(start + most, int(run[-1]) + 1)])
