"""Where a file and a hint both speak: they must agree, and what neither says is asked for."""

from collections.abc import Iterable, Iterator
from typing import get_args

import numpy as np

from volrecon.errors import ConfigError, DataError
from volrecon.formats.base import AxisOrder, Quantity
from volrecon.geometry import VolumeGeometry


def float32_slices(slices: Iterable[np.ndarray], geometry: VolumeGeometry) -> Iterator[np.ndarray]:
    """The slices of a volume as C-contiguous float32, one at a time, checked against the grid."""
    depth, *plane = geometry.shape
    return _counted(slices, depth, tuple(plane), "slice", f"a volume of {geometry.shape} (z, y, x)")


def float32_views(views: Iterable[np.ndarray], shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
    """The views (v, u) of projections `shape` (v, angle, u) as C-contiguous float32, one at a time, checked."""
    rows, count, columns = shape
    return _counted(views, count, (rows, columns), "view", f"projections of {shape} (v, angle, u)")


def _counted(
    planes: Iterable[np.ndarray], expected: int, plane: tuple[int, ...], name: str, whole: str
) -> Iterator[np.ndarray]:
    count = 0
    for count, values in enumerate(planes, start=1):
        if count > expected or values.shape != plane:
            raise DataError(f"{name} {count - 1} of shape {values.shape} does not fit {whole}")
        yield np.ascontiguousarray(values, dtype=np.float32)
    if count < expected:
        raise DataError(f"only {count} {name}s for {whole}")


def agreed_voxel(
    in_file: tuple[float, float, float] | None, hint: tuple[float, float, float] | None
) -> tuple[float, float, float]:
    """The voxel size (z, y, x) in mm that the file or the hint states; both must agree to a thousandth."""
    voxel = in_file or hint
    if voxel is None:
        raise ConfigError("states no voxel size; give the hint voxel_zyx_mm = (z, y, x) in mm (--file-voxel-mm)")
    if hint is not None and not np.allclose(voxel, hint, rtol=1e-3, atol=0):
        raise ConfigError(f"states voxels of {voxel} mm (z, y, x), the hint voxel_zyx_mm says {hint}; drop one")
    return voxel


def agreed_quantity(in_file: Quantity | None, hint: Quantity | None) -> Quantity:
    """What the numbers are, as the file or the hint states it; both must agree."""
    quantity = in_file or hint
    if quantity is None:
        raise ConfigError("does not state what its numbers are; give the hint quantity = 'hu' or 'per_mm' (--quantity)")
    if hint is not None and hint != quantity:
        raise ConfigError(f"holds {quantity!r}, the hint quantity says {hint!r}; drop the hint")
    return quantity


def agreed_axes(in_file: AxisOrder | None, hint: AxisOrder | None) -> AxisOrder:
    """The axis order of projections, as the file's layout or the hint states it; the hint wins."""
    axes = hint or in_file
    if axes is None:
        known = ", ".join(map(repr, get_args(AxisOrder)))
        raise ConfigError(f"does not state the order of its axes; give the hint axes (--axes), one of {known}")
    return axes


def as_v_angle_u(stored: np.ndarray, axes: AxisOrder) -> np.ndarray:
    """A view of projections stored in the order `axes`, as (v, angle, u)."""
    expected = axes.count(",") + 1
    if stored.ndim != expected:
        raise DataError(f"has shape {stored.shape}; axes {axes!r} need {expected} dimensions")
    if axes == "angle,u":
        return stored[np.newaxis]
    return stored.swapaxes(0, 1) if axes == "angle,v,u" else stored
