"""Rings: pixels that respond a little differently draw stripes into sinograms, and rings into slices."""

import numpy as np
from scipy.ndimage import median_filter

FEWEST_VIEWS = 16
"""Below, an object may stand still long enough to be taken for a stripe."""


def without_rings(sinogram: np.ndarray, width: int) -> np.ndarray:
    """A finite sinogram (views, u) without stripes narrower than about half of `width` columns.

    A pixel that responds by a factor differently adds one number to all its line integrals: here the median over the
    views of what a running median over `width` columns takes away. Boin and Haibel, Optics Express 14(25), 12071, 2006,
    with medians for their means, so that the edges of strong objects, which pass through a column, do not count.
    """
    rest = sinogram - median_filter(sinogram, size=(1, width), mode="reflect")
    return np.asarray(sinogram - np.median(rest, axis=0, keepdims=True), dtype=sinogram.dtype)
