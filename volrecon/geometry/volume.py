"""The voxel grid of a volume."""

import math
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from volrecon.errors import GeometryError

SMALLEST_MM = 1e-6
"""Pixels and voxels below one nanometre are taken for a unit mistake."""

LARGEST_MM = 1e5


def checked_size(name: str, value: float) -> float:
    """A length of one pixel or voxel, refused when it is not between 1e-6 and 1e5 mm."""
    value = float(value)
    if not math.isfinite(value) or not SMALLEST_MM <= value <= LARGEST_MM:
        raise GeometryError(
            f"{name} is {value:g} mm; it must be between {SMALLEST_MM:g} and {LARGEST_MM:g} mm. Check its unit."
        )
    return value


@dataclass(frozen=True)
class VolumeGeometry:
    """A grid of voxels, axes (z, y, x), z the rotation axis.

    Args:
        shape: number of voxels (z, y, x).
        voxel_zyx_mm: voxel size along (z, y, x).
        centre_xyz_mm: the grid's centre in the world, (x, y, z).

    Raises:
        GeometryError: a count below 1, or a size that is not a plausible length.
    """

    shape: tuple[int, int, int]
    voxel_zyx_mm: tuple[float, float, float]
    centre_xyz_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or any(int(n) != n or n < 1 for n in self.shape):
            raise GeometryError(f"the volume's shape is {self.shape}; give three counts (z, y, x) of at least 1")
        if len(self.voxel_zyx_mm) != 3 or len(self.centre_xyz_mm) != 3:
            raise GeometryError(
                f"voxel size {self.voxel_zyx_mm} and centre {self.centre_xyz_mm} need three numbers each"
            )
        sizes = zip("zyx", self.voxel_zyx_mm, strict=True)
        centre = tuple(float(c) for c in self.centre_xyz_mm)
        if not all(math.isfinite(c) for c in centre):
            raise GeometryError(f"the volume's centre is {centre} mm; it must be finite")
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "voxel_zyx_mm", tuple(checked_size(f"voxel size in {a}", s) for a, s in sizes))
        object.__setattr__(self, "centre_xyz_mm", centre)

    @property
    def voxel_xyz_mm(self) -> np.ndarray:
        """Voxel size as a world vector (x, y, z), float64."""
        return np.array(self.voxel_zyx_mm[::-1])

    @property
    def size_xyz_mm(self) -> np.ndarray:
        """Edge lengths of the whole grid as a world vector (x, y, z)."""
        return self.voxel_xyz_mm * np.array(self.shape[::-1])

    @property
    def origin_xyz_mm(self) -> np.ndarray:
        """World position of the centre of voxel (0, 0, 0), as (x, y, z)."""
        return np.array(self.centre_xyz_mm) - self.voxel_xyz_mm * (np.array(self.shape[::-1]) - 1) / 2

    @property
    def radius_xy_mm(self) -> float:
        """Radius of the circle about the grid's own centre that holds every slice."""
        return float(np.hypot(*self.size_xyz_mm[:2]) / 2)

    def slab(self, start: int, stop: int) -> Self:
        """The grid of slices [start, stop), in place in the world."""
        if not 0 <= start < stop <= self.shape[0]:
            raise GeometryError(f"slab [{start}, {stop}) is not inside a volume of {self.shape[0]} slices")
        x, y, z = self.centre_xyz_mm
        z += ((start + stop) / 2 - self.shape[0] / 2) * self.voxel_zyx_mm[0]
        return replace(self, shape=(stop - start, *self.shape[1:]), centre_xyz_mm=(x, y, z))

    def refined(self, factor: int) -> Self:
        """The same box cut into voxels `factor` times smaller."""
        (nz, ny, nx), (dz, dy, dx) = self.shape, self.voxel_zyx_mm
        return replace(
            self,
            shape=(nz * factor, ny * factor, nx * factor),
            voxel_zyx_mm=(dz / factor, dy / factor, dx / factor),
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "shape_zyx": list(self.shape),
            "voxel_zyx_mm": list(self.voxel_zyx_mm),
            "centre_xyz_mm": list(self.centre_xyz_mm),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        try:
            return cls(tuple(data["shape_zyx"]), tuple(data["voxel_zyx_mm"]), tuple(data["centre_xyz_mm"]))
        except (KeyError, TypeError, ValueError) as error:
            raise GeometryError(f"not a volume geometry ({error}): {str(data)[:200]}") from error
