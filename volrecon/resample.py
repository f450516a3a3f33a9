"""A volume on another grid: area-averaged where voxels grow, linearly interpolated where they shrink."""

import numpy as np

from volrecon.errors import DataError
from volrecon.geometry import VolumeGeometry


def resampled(array: np.ndarray, source: VolumeGeometry, target: VolumeGeometry) -> np.ndarray:
    """`array` (z, y, x) of grid `source` on grid `target`, float32; beyond the source the edge value goes on.

    Separable: every output voxel is the mean of the piecewise linear input over its own width, or over one input
    voxel where that is wider.
    """
    if array.shape != source.shape:
        raise DataError(f"the array has shape {array.shape}, its grid {source.shape}")
    out = np.asarray(array, dtype=np.float32)
    for axis, world in enumerate((2, 1, 0)):
        weights = _weights(
            source.shape[axis],
            float(source.origin_xyz_mm[world]),
            source.voxel_zyx_mm[axis],
            target.shape[axis],
            float(target.origin_xyz_mm[world]),
            target.voxel_zyx_mm[axis],
        )
        if weights is not None:
            out = np.moveaxis(np.tensordot(weights, np.moveaxis(out, axis, 0), axes=(1, 0)), 0, axis)
    return np.ascontiguousarray(out, dtype=np.float32)


def _weights(
    count: int, origin: float, step: float, new_count: int, new_origin: float, new_step: float
) -> np.ndarray | None:
    """Matrix (new_count, count) of one axis; None if the axis stays as it is."""
    if (count, origin, step) == (new_count, new_origin, new_step):
        return None
    ratio = new_step / step
    centres = (new_origin + new_step * np.arange(new_count) - origin) / step
    samples = max(1, 2 * int(np.ceil(ratio)))
    offsets = ((np.arange(samples) + 0.5) / samples - 0.5) * ratio if ratio > 1 else np.zeros(1)
    position = np.clip(centres[:, None] + offsets, 0, count - 1)
    low = np.minimum(position.astype(int), max(count - 2, 0))
    fraction = position - low
    weights = np.zeros((new_count, count))
    rows = np.broadcast_to(np.arange(new_count)[:, None], low.shape)
    np.add.at(weights, (rows, low), (1 - fraction) / position.shape[1])
    np.add.at(weights, (rows, np.minimum(low + 1, count - 1)), fraction / position.shape[1])
    return weights.astype(np.float32)
