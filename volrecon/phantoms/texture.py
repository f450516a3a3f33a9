"""Band-limited noise that is a function of space, not of the grid."""

from dataclasses import dataclass

import numpy as np

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

    def on(self, axes_zyx: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
        """Means over the voxels with these evenly spaced centres: float32 (z, y, x)."""
        z, y, x = (_weights(axis, len(self.knots)) for axis in axes_zyx)
        rows = np.tensordot(z, self.knots, axes=1)
        return np.asarray((y @ rows) @ x.T)

    def at(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Values at scattered points (n,)."""
        count = len(self.knots)
        weights = (_spline_rows(axis, count) for axis in (z, y, x))
        return np.einsum("ni,nj,nk,ijk->n", *weights, self.knots, optimize="greedy")


def _weights(centres: np.ndarray, count: int) -> np.ndarray:
    """(voxels, knots): spline weights averaged over each voxel."""
    pitch = float(centres[1] - centres[0]) if len(centres) > 1 else 0.0
    offsets = ((np.arange(_SUBSAMPLES) + 0.5) / _SUBSAMPLES - 0.5) * pitch
    points = (centres[:, None] + offsets).ravel()
    return _spline_rows(points, count).reshape(len(centres), _SUBSAMPLES, count).mean(axis=1)


def _spline_rows(points: np.ndarray, count: int) -> np.ndarray:
    """(points, knots) float32: the uniform cubic B-spline centred at every knot."""
    position = (np.asarray(points, np.float64) + 1) / 2 * (count - 3) + 1
    distance = np.abs(position[:, None] - np.arange(count))
    near = 2 / 3 - distance**2 * (1 - distance / 2)
    far = np.maximum(2 - distance, 0) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)
