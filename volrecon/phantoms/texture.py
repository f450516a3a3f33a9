"""Band-limited noise that is a function of space, not of the grid."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from volrecon.phantoms.canvas import Axes

_SPLINE_POWER = 151 / 315
"""Integral of the squared cubic B-spline: the variance it leaves of white noise, per axis."""

_SUBSAMPLES = 4
"""Points per voxel and axis over which the noise is averaged, so that coarse grids do not alias it."""


@dataclass(frozen=True)
class Lattice:
    """White noise on a lattice of knots over [-1, 1]³, joined by cubic B-splines: unit variance, band limited."""

    knots: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, cells: int) -> "Lattice":
        """`cells` knots a box edge: features are about 2 / cells wide."""
        knots = rng.standard_normal((cells + 3,) * 3, dtype=np.float32)
        return cls(knots / np.float32(_SPLINE_POWER**1.5))

    def on(self, axes_zyx: Axes, voxel: float) -> np.ndarray:
        """Means over the cubes of edge `voxel` about these centres: float32 (z, y, x)."""
        count = len(self.knots)
        z, y, x = (_weights(axis, voxel, count) for axis in axes_zyx)
        planes = (z @ self.knots.reshape(count, -1)).reshape(-1, count, count)
        return np.stack([(x @ (y @ plane).T).T for plane in planes])


def _weights(centres: np.ndarray, voxel: float, count: int) -> csr_array:
    """(voxels, knots): the uniform cubic B-spline about every knot, averaged over each voxel.

    Sparse: a voxel sees few knots; and its products are summed in one order on every machine, unlike BLAS's.
    """
    offsets = ((np.arange(_SUBSAMPLES) + 0.5) / _SUBSAMPLES - 0.5) * voxel
    position = (centres[:, None] + offsets + 1) / 2 * (count - 3) + 1
    distance = np.abs(position[:, :, None] - np.arange(count))
    near = 2 / 3 - distance**2 * (1 - distance / 2)
    far = np.maximum(2 - distance, 0) ** 3 / 6
    return csr_array(np.where(distance < 1, near, far).mean(axis=1).astype(np.float32))
