"""What organs are painted on: a slab of voxels in normalised coordinates, and soft-edged implicit shapes.

The grid's box is [-1, 1] along every axis, so a phantom is the same object on every grid of a box. Axes follow
DICOM's patient: x to the patient's left, y to the back, z to the head. Shapes are approximate signed distances
(negative inside), in these units; at 380 mm a box edge, 0.01 is 1.9 mm.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
from scipy.spatial.transform import Rotation

WARP = 0.028
"""Largest displacement of the coordinates in x and y (see texture.py); windows are padded by it."""

Index = tuple[slice, slice, slice]
Triple = tuple[float, float, float]
Axes = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Voxel centres along z, y and x, float32, in [-1, 1]."""


class Tissue(NamedTuple):
    """Mean value in HU and standard deviation of the texture in HU."""

    hu: float | np.ndarray
    texture: float


class Place(NamedTuple):
    """Points of the body: arrays that broadcast to one shape, a slab's (z, y, x) or (n,).

    `depth` is the distance below the skin, `wall` the signed distance to the inner body wall, negative inside.
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    depth: np.ndarray
    wall: np.ndarray


@dataclass(frozen=True)
class Canvas:
    """A slab being painted in place: `hu` and `texture`, float32 (z, y, x).

    `axes_zyx` are the voxel centres before the warp, `voxel` the in-plane voxel size; both normalised.
    """

    axes_zyx: Axes
    voxel: float
    place: Place
    hu: np.ndarray
    texture: np.ndarray

    def paint(self, coverage: np.ndarray, tissue: Tissue) -> None:
        """Mix `tissue` in by its share of each voxel, `coverage` in [0, 1]."""
        for values, painted in ((self.hu, tissue.hu), (self.texture, tissue.texture)):
            values += coverage * (painted - values)

    def edge(self, distance: np.ndarray) -> np.ndarray:
        """Share of a voxel inside a locally flat surface at `distance` from its centre."""
        return np.clip(0.5 - distance / self.voxel, 0, 1)

    def sheet(self, distance: np.ndarray, thickness: float) -> np.ndarray:
        """Share of a voxel inside a thin sheet about distance 0; keeps the mass when thinner than a voxel."""
        share = min(1.0, thickness / self.voxel)
        half = max(thickness, self.voxel) / 2
        return share * self.edge(np.abs(distance) - half)

    def index(self, low_xyz: np.ndarray, high_xyz: np.ndarray) -> Index | None:
        """The voxels that a shape inside this box can touch, or None if there are none."""
        pads = (self.voxel, self.voxel + WARP, self.voxel + WARP)
        bounds = []
        for axis, low, high, pad in zip(self.axes_zyx, low_xyz[::-1], high_xyz[::-1], pads, strict=True):
            start, stop = np.searchsorted(axis, (low - pad, high + pad))
            if start == stop:
                return None
            bounds.append(slice(int(start), int(stop)))
        return bounds[0], bounds[1], bounds[2]

    def crop(self, index: Index) -> "Canvas":
        """The same canvas seen through a window; painting it paints this one."""
        z, y, x = self.axes_zyx
        place = Place(
            self.place.x[index],
            self.place.y[index],
            self.place.z[index[0]],
            self.place.depth[index],
            self.place.wall[index],
        )
        return replace(
            self,
            axes_zyx=(z[index[0]], y[index[1]], x[index[2]]),
            place=place,
            hu=self.hu[index],
            texture=self.texture[index],
        )

    def window(self, low_xyz: np.ndarray, high_xyz: np.ndarray) -> "Canvas | None":
        """`crop` to a box, or None where this slab has nothing of it."""
        index = self.index(low_xyz, high_xyz)
        return None if index is None else self.crop(index)


class Organ(Protocol):
    """Something that paints its share of a slab."""

    def paint(self, canvas: Canvas) -> None: ...


def smooth_max(first: np.ndarray, second: np.ndarray, radius: float) -> np.ndarray:
    """Intersection of two shapes with a rounded seam (the quadratic smooth maximum)."""
    blend = np.maximum(radius - np.abs(first - second), 0)
    return np.maximum(first, second) + blend * blend * (0.25 / radius)


def smooth_min(first: np.ndarray, second: np.ndarray, radius: float) -> np.ndarray:
    """Union of two shapes with a filleted seam."""
    return -smooth_max(-first, -second, radius)


def oval(a: np.ndarray, b: np.ndarray, semi_a: float, semi_b: float) -> np.ndarray:
    """Distance to an ellipse about 0, first order: k0 (k0 - 1) / k1 with k0 = |p/r|, k1 = |p/r²|."""
    a, b = a / semi_a, b / semi_b
    k0 = np.hypot(a, b)
    k1 = np.maximum(np.hypot(a / semi_a, b / semi_b), 1e-6)
    return k0 * (k0 - 1) / k1


@dataclass(frozen=True)
class Ellipsoid:
    """A rotated ellipsoid: `axes` are its rows of unit vectors, `semi` the half-lengths along them."""

    centre: np.ndarray
    semi: np.ndarray
    axes: np.ndarray

    @classmethod
    def make(
        cls,
        centre: Triple | np.ndarray,
        semi: Triple | np.ndarray,
        angles_deg: Triple = (0.0, 0.0, 0.0),
    ) -> "Ellipsoid":
        """Centre and half-lengths (x, y, z), then turned about fixed x, y, z."""
        matrix = Rotation.from_euler("xyz", angles_deg, degrees=True).as_matrix()
        return cls(np.array(centre, float), np.array(semi, float), matrix.T)

    def grown(self, by: float) -> "Ellipsoid":
        return replace(self, semi=self.semi + by)

    def point(self, along: Triple) -> np.ndarray:
        """The point at these fractions of the half-lengths."""
        return self.centre + (np.array(along) * self.semi) @ self.axes

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        reach = np.sqrt(((self.axes * self.semi[:, None]) ** 2).sum(axis=0))
        return self.centre - reach, self.centre + reach

    def distance(self, at: Place) -> np.ndarray:
        x, y, z = at.x - float(self.centre[0]), at.y - float(self.centre[1]), at.z - float(self.centre[2])
        k0 = np.zeros(np.broadcast_shapes(x.shape, z.shape), np.float32)
        k1 = np.full_like(k0, 1e-8)
        for (i, j, k), semi in zip(self.axes.tolist(), self.semi.tolist(), strict=True):
            along = (x * i + y * j + z * k) / semi
            k0 += along * along
            k1 += (along / semi) ** 2
        k0 = np.sqrt(k0)
        return k0 * (k0 - 1) / np.sqrt(k1)

    def paint(self, canvas: Canvas, tissue: Tissue) -> None:
        """Paint the whole ellipsoid. One smaller than a voxel keeps its mass."""
        window = canvas.window(*self.bounds())
        if window is None:
            return
        least = canvas.voxel * 0.62  # a ball of this radius has the volume of a voxel
        semi = np.maximum(self.semi, least)
        share = float(np.prod(self.semi / semi))
        window.paint(share * window.edge(replace(self, semi=semi).distance(window.place)), tissue)
