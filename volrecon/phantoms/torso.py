"""The trunk: outline, skin, fat and muscle, and the inner wall that the organs lie in."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from volrecon.phantoms.canvas import WARP, Axes, Canvas, Place, Tissue, Triple, smooth_max
from volrecon.phantoms.texture import Lattice

SKIN = Tissue(25, 6)
FAT = Tissue(-100, 8)
VISCERAL_FAT = Tissue(-96, 9)
MUSCLE = Tissue(58, 10)

SKIN_THICKNESS = 0.011
LENGTH = 0.88
"""The body ends at |z| = LENGTH: the first and last 4% of the slices hold air only."""

_SQUARENESS = 2.35
"""Exponent of the superellipse that is the undeformed cross-section."""

_HEIGHTS = (-0.92, -0.84, -0.7, -0.48, -0.22, 0.1, 0.36, 0.54, 0.66, 0.75, 0.83, 0.92)
_HALF_WIDTH = (0.66, 0.75, 0.79, 0.76, 0.73, 0.76, 0.8, 0.81, 0.74, 0.54, 0.3, 0.26)
_HALF_DEPTH = (0.47, 0.53, 0.57, 0.59, 0.58, 0.59, 0.59, 0.54, 0.45, 0.34, 0.27, 0.25)
_FAT = (0.1, 0.1, 0.1, 0.085, 0.07, 0.055, 0.05, 0.05, 0.05, 0.045, 0.04, 0.04)
_SPINE_Y = (0.25, 0.24, 0.19, 0.16, 0.18, 0.23, 0.26, 0.24, 0.19, 0.14, 0.1, 0.09)
_SPINE_RADIUS = (0.12, 0.12, 0.118, 0.115, 0.108, 0.098, 0.09, 0.082, 0.072, 0.06, 0.052, 0.05)
_MUSCLE = (0.1, 0.085, 0.07, 0.06, 0.06, 0.075, 0.08, 0.09, 0.1, 0.11, 0.11, 0.1)


@dataclass(frozen=True)
class Profile:
    """A smooth function of height z."""

    curve: PchipInterpolator

    @classmethod
    def through(cls, values: tuple[float, ...] | np.ndarray, scale: float | np.ndarray = 1.0) -> "Profile":
        """Through values * scale at the heights of this module."""
        return cls(PchipInterpolator(_HEIGHTS, np.asarray(values) * scale))

    def __call__(self, z: np.ndarray) -> np.ndarray:
        return np.asarray(self.curve(np.clip(z, _HEIGHTS[0], _HEIGHTS[-1])), dtype=np.float32)


@dataclass(frozen=True)
class Torso:
    """The trunk of one seed: half-axes, layers and spine as functions of height, and how fat gathers in front.

    `warp_x`, `warp_y` displace all anatomy, so that nothing is an exact ellipse.
    """

    width: Profile
    depth: Profile
    fat: Profile
    muscle: Profile
    spine_y: Profile
    spine_radius: Profile
    belly: float
    warp_x: Lattice
    warp_y: Lattice

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Torso":
        wobble = rng.uniform(0.97, 1.03, (2, len(_HEIGHTS)))
        return cls(
            width=Profile.through(_HALF_WIDTH, wobble[0] * rng.uniform(0.95, 1.02)),
            depth=Profile.through(_HALF_DEPTH, wobble[1] * rng.uniform(0.95, 1.05)),
            fat=Profile.through(_FAT, rng.uniform(0.7, 1.25)),
            muscle=Profile.through(_MUSCLE, rng.uniform(0.9, 1.1)),
            spine_y=Profile.through(_SPINE_Y, rng.uniform(0.92, 1.08)),
            spine_radius=Profile.through(_SPINE_RADIUS, rng.uniform(0.94, 1.06)),
            belly=rng.uniform(0.1, 0.5),
            warp_x=Lattice.draw(rng, 5),
            warp_y=Lattice.draw(rng, 5),
        )

    def warped(self, axes_zyx: Axes, voxel: float) -> Place:
        """Where the voxels with these centres and this size lie in the body."""
        z, y, x = axes_zyx
        shift_x = WARP * np.tanh(self.warp_x.on(axes_zyx, voxel) / 1.5)
        shift_y = WARP * np.tanh(self.warp_y.on(axes_zyx, voxel) / 1.5)
        return self.place(x + shift_x, y[:, None] + shift_y, z[:, None, None])

    def place(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Place:
        """Points in body coordinates with their depth below skin and their distance to the inner wall."""
        depth = self._depth(x, y, z)
        # More fat in front and at the flanks than over the spine.
        padding = self.fat(z) * (1 + self.belly * np.clip(-2.5 * y, -0.6, 1))
        return Place(x, y, z, depth, padding + self.muscle(z) + _pectoral(x, y, z) - depth)

    def _depth(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        furrow = 0.035 * np.exp(-((x / 0.1) ** 2)) * np.clip(4 * y, 0, 1)
        half_width, half_depth = self.width(z), self.depth(z)
        u, v = np.abs(x) / half_width, np.maximum(np.abs(y + furrow) - _pectoral(x, y, z), 0) / half_depth
        pu, pv = u ** (_SQUARENESS - 1), v ** (_SQUARENESS - 1)
        gauge = np.maximum((pu * u + pv * v) ** (1 / _SQUARENESS), 0.05)
        slope = np.hypot(pu / half_width, pv / half_depth) * gauge ** (1 - _SQUARENESS)
        outline = (gauge - 1) / np.maximum(slope, 0.7 / np.maximum(half_width, half_depth))
        return np.asarray(-outline)

    def cover(self, canvas: Canvas) -> np.ndarray:
        """Share of every voxel inside the body, which is cut off at both ends with a rounded rim."""
        at = canvas.place
        return canvas.edge(smooth_max(-at.depth, np.abs(at.z) - np.float32(LENGTH), 0.12))

    def paint(self, canvas: Canvas) -> None:
        """Skin over fat over muscle around visceral fat."""
        at = canvas.place
        thickness = self.muscle(at.z) + _pectoral(at.x, at.y, at.z)
        canvas.hu[...], canvas.texture[...] = FAT
        canvas.paint(canvas.edge(at.depth - SKIN_THICKNESS), SKIN)
        canvas.paint(canvas.edge(at.wall - thickness), MUSCLE)
        self._muscle_planes(canvas, thickness)
        canvas.paint(canvas.edge(at.wall), VISCERAL_FAT)

    def _muscle_planes(self, canvas: Canvas, thickness: np.ndarray) -> None:
        """Thin fat between the layers of the wall, broken at intervals."""
        at = canvas.place
        gaps = np.clip(1.5 * np.cos(5 * at.x + 9 * at.z) + 0.3, 0, 1)
        for share in (0.36, 0.7):
            canvas.paint(0.8 * gaps * canvas.sheet(at.wall - share * thickness, 0.006), FAT)


def points_inside(
    rng: np.random.Generator,
    torso: Torso,
    distance: Callable[[Place], np.ndarray],
    bounds: tuple[Triple, Triple],
    count: int,
    margin: float,
) -> np.ndarray:
    """`count` random points (x, y, z), float64 (count, 3), at least `margin` below a surface.

    `distance` is the organ's signed distance, `bounds` the low and high corner of a box about the organ.
    """
    found = np.empty((0, 3))
    while len(found) < count:
        tries = rng.uniform(*bounds, (8 * count, 3))
        found = np.concatenate([found, tries[distance(torso.place(*tries.T)) < -margin]])
    return found[:count]


def _pectoral(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """How far the chest muscles bulge forward."""
    across = np.exp(-(((np.abs(x) - 0.3) / 0.17) ** 2)) * np.clip(-4 * y, 0, 1)
    return np.asarray(0.045 * across * np.exp(-(((z - 0.47) / 0.17) ** 2)))


@dataclass(frozen=True)
class Diaphragm:
    """Two domes: lungs above, liver, stomach and spleen below. `peak` heights and centres for right and left."""

    peak: tuple[float, float]
    centre_x: tuple[float, float]
    centre_y: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Diaphragm":
        right, left = rng.uniform(0.08, 0.16), rng.uniform(0.0, 0.08)
        return cls((right, left), (-0.33, 0.33), rng.uniform(-0.06, 0.02))

    def below(self, at: Place) -> np.ndarray:
        """Signed distance to the surface, negative below it."""
        right, left = (
            peak - 1.5 * (at.x - x) ** 2 - 1.25 * (at.y - self.centre_y) ** 2
            for peak, x in zip(self.peak, self.centre_x, strict=True)
        )
        return np.asarray(0.85 * (at.z - np.maximum(smooth_max(right, left, 0.1), -0.42)))
