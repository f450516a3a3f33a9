"""A ball and a box on a grid, and the closed forms of their line integrals."""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from volrecon.errors import ConfigError
from volrecon.geometry import VolumeGeometry

SUBSAMPLES = 8
"""A voxel that the ball's surface may cut is sampled at SUBSAMPLES**3 points."""

EDGE_BATCH = 4096
"""Cut voxels sampled at once: bounds the temporaries to a few MB."""

Vector = Sequence[float] | np.ndarray


def ball(volume: VolumeGeometry, centre_xyz_mm: Vector, radius_mm: float, value: float) -> np.ndarray:
    """A homogeneous ball on the grid, with partial volume at its surface.

    Args:
        volume: the grid.
        centre_xyz_mm: centre in the world, (x, y, z).
        radius_mm: radius, above 0.
        value: linear attenuation inside, 1/mm; outside is 0.

    Returns:
        (z, y, x) float32. Whole voxels are exact; a cut voxel is the mean of 8 x 8 x 8 samples.

    Raises:
        ConfigError: a vector that is not three finite numbers, or a radius that is not positive.
    """
    centre = _vector("centre_xyz_mm", centre_xyz_mm)
    radius = _radius(radius_mm)
    out = np.zeros(volume.shape, np.float32)
    xs, ys, zs = (_centres(volume, axis) - centre[axis] for axis in range(3))
    half_diagonal = float(np.linalg.norm(volume.voxel_xyz_mm)) / 2
    in_plane = xs[None, :] ** 2 + ys[:, None] ** 2
    for k in np.flatnonzero(np.abs(zs) < radius + half_diagonal):
        distance = np.sqrt(in_plane + zs[k] ** 2)
        out[k][distance <= radius - half_diagonal] = value
        j, i = np.nonzero(np.abs(distance - radius) < half_diagonal)
        points = np.stack([xs[i], ys[j], np.full(len(i), zs[k])], axis=-1)
        out[k, j, i] = value * _share_in_ball(points, volume.voxel_xyz_mm, radius)
    return out


def box(volume: VolumeGeometry, low_xyz_mm: Vector, high_xyz_mm: Vector, value: float) -> np.ndarray:
    """A homogeneous box with faces along the axes; partial volume is exact.

    Args:
        volume: the grid.
        low_xyz_mm, high_xyz_mm: opposite corners in the world, (x, y, z), low below high.
        value: linear attenuation inside, 1/mm; outside is 0.

    Returns:
        (z, y, x) float32.

    Raises:
        ConfigError: corners that are not three finite numbers or are in the wrong order.
    """
    low, high = _corners(low_xyz_mm, high_xyz_mm)
    shares = []
    for axis in range(3):
        centres, half = _centres(volume, axis), volume.voxel_xyz_mm[axis] / 2
        overlap = np.minimum(centres + half, high[axis]) - np.maximum(centres - half, low[axis])
        shares.append(np.clip(overlap / (2 * half), 0, 1))
    x, y, z = shares
    in_plane = (value * np.outer(y, x)).astype(np.float32)
    return z.astype(np.float32)[:, None, None] * in_plane


def ball_line_integral(
    origin: np.ndarray, direction: np.ndarray, centre_xyz_mm: Vector, radius_mm: float, value: float
) -> np.ndarray:
    """Integral of `ball` along infinite lines: chord length times value.

    Args:
        origin: a point of each line, (..., 3), (x, y, z) mm.
        direction: its direction, (..., 3), any length above 0; broadcast against `origin`.
        centre_xyz_mm, radius_mm, value: as in `ball`.

    Returns:
        float64 of the broadcast shape without the last axis, dimensionless.

    Raises:
        ConfigError: as in `ball`; a last axis other than 3; a direction of length 0.
    """
    radius = _radius(radius_mm)
    origin, direction = _lines(origin, direction)
    unit = direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    to_centre = _vector("centre_xyz_mm", centre_xyz_mm) - origin
    # The cross product keeps its digits where |to_centre|² - (to_centre·unit)² would cancel.
    distance = np.linalg.norm(np.cross(to_centre, unit), axis=-1)
    return value * 2 * np.sqrt(np.maximum((radius - distance) * (radius + distance), 0))


def box_line_integral(
    origin: np.ndarray, direction: np.ndarray, low_xyz_mm: Vector, high_xyz_mm: Vector, value: float
) -> np.ndarray:
    """Integral of `box` along infinite lines, by the slab method of Kay and Kajiya (1986).

    A line that runs inside a face of the box counts as inside. Arguments, result and errors are those of
    `ball_line_integral` and `box`.
    """
    low, high = _corners(low_xyz_mm, high_xyz_mm)
    origin, direction = _lines(origin, direction)
    enter = np.full(direction.shape[:-1], -np.inf)
    leave = np.full(direction.shape[:-1], np.inf)
    for axis in range(3):
        start, step = origin[..., axis], direction[..., axis]
        runs = step != 0
        divisor = np.where(runs, step, 1.0)
        first, second = (low[axis] - start) / divisor, (high[axis] - start) / divisor
        between = (low[axis] <= start) & (start <= high[axis])
        enter = np.maximum(enter, np.where(runs, np.minimum(first, second), np.where(between, -np.inf, np.inf)))
        leave = np.minimum(leave, np.where(runs, np.maximum(first, second), np.where(between, np.inf, -np.inf)))
    steps = np.where(enter < leave, leave, 0.0) - np.where(enter < leave, enter, 0.0)
    return value * steps * np.linalg.norm(direction, axis=-1)


def _share_in_ball(points: np.ndarray, voxel_xyz_mm: np.ndarray, radius: float) -> np.ndarray:
    """Share of each voxel inside the ball about 0; `points` (n, 3) are the voxels' centres."""
    at = (np.arange(SUBSAMPLES) + 0.5) / SUBSAMPLES - 0.5
    offsets = np.array(list(itertools.product(at, repeat=3))) * voxel_xyz_mm
    shares = np.empty(len(points))
    for start in range(0, len(points), EDGE_BATCH):
        batch = points[start : start + EDGE_BATCH]
        squared = sum((batch[:, axis, None] + offsets[:, axis]) ** 2 for axis in range(3))
        shares[start : start + EDGE_BATCH] = np.mean(squared <= radius**2, axis=1)
    return shares


def _centres(volume: VolumeGeometry, axis: int) -> np.ndarray:
    """World coordinates of the voxel centres along x (0), y (1) or z (2)."""
    return volume.origin_xyz_mm[axis] + volume.voxel_xyz_mm[axis] * np.arange(volume.shape[2 - axis])


def _vector(name: str, value: Vector) -> np.ndarray:
    vector = np.asarray(value, np.float64)
    if vector.shape != (3,) or not np.isfinite(vector).all():
        raise ConfigError(f"{name} is {value}; give three finite numbers (x, y, z) in mm")
    return vector


def _radius(radius_mm: float) -> float:
    if not math.isfinite(radius_mm) or radius_mm <= 0:
        raise ConfigError(f"radius_mm is {radius_mm}; it must be above 0")
    return float(radius_mm)


def _corners(low_xyz_mm: Vector, high_xyz_mm: Vector) -> tuple[np.ndarray, np.ndarray]:
    low, high = _vector("low_xyz_mm", low_xyz_mm), _vector("high_xyz_mm", high_xyz_mm)
    if not (low < high).all():
        raise ConfigError(f"the box runs from {low} to {high} mm; every low must lie below its high")
    return low, high


def _lines(origin: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    origin, direction = np.asarray(origin, np.float64), np.asarray(direction, np.float64)
    if origin.shape[-1:] != (3,) or direction.shape[-1:] != (3,):
        raise ConfigError(
            f"lines need (..., 3) origins and directions; got shapes {origin.shape} and {direction.shape}"
        )
    origin, direction = np.broadcast_arrays(origin, direction)
    if not (np.linalg.norm(direction, axis=-1) > 0).all():
        raise ConfigError("a line's direction has length 0")
    return origin, direction
