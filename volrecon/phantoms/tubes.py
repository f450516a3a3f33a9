"""Thin curved structures: chains and trees of tapered capsules, drawn with their true mass at any voxel size."""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

from volrecon.phantoms.canvas import Canvas, Tissue

MURRAY = 2.7
"""Radii obey r_parent**MURRAY = sum of r_child**MURRAY; 3 is Murray's law, lungs measure lower."""


@dataclass(frozen=True)
class Tubes:
    """`n` tapered capsules: end points (n, 3) (x, y, z) and radii (n,), normalised units."""

    start: np.ndarray
    end: np.ndarray
    start_radius: np.ndarray
    end_radius: np.ndarray

    def widened(self, factor: float, by: float = 0.0) -> "Tubes":
        """The same centre lines with radii r * factor + by, at least 0."""
        first, last = (np.maximum(r * factor + by, 0) for r in (self.start_radius, self.end_radius))
        return Tubes(self.start, self.end, first, last)

    def coverage(self, canvas: Canvas) -> np.ndarray:
        """Share of every voxel of the canvas inside the tubes' union: float32 (z, y, x)."""
        out = np.zeros_like(canvas.hu)
        reach = np.maximum(self.start_radius, self.end_radius)[:, None] + canvas.voxel
        low, high = np.minimum(self.start, self.end) - reach, np.maximum(self.start, self.end) + reach
        z = canvas.axes_zyx[0]
        for i in np.flatnonzero((low[:, 2] <= z[-1]) & (high[:, 2] >= z[0])):
            index = canvas.index(low[i], high[i])
            if index is not None:
                np.maximum(out[index], self._capsule(int(i), canvas.crop(index)), out=out[index])
        return out

    def paint(self, canvas: Canvas, tissue: Tissue) -> None:
        canvas.paint(self.coverage(canvas), tissue)

    def _capsule(self, i: int, canvas: Canvas) -> np.ndarray:
        at, (x, y, z) = canvas.place, self.start[i].tolist()
        dx, dy, dz = (self.end[i] - self.start[i]).tolist()
        squared = dx * dx + dy * dy + dz * dz + 1e-12
        x, y, z = at.x - x, at.y - y, at.z - z
        along = np.clip((x * dx + y * dy + z * dz) / squared, 0, 1)
        distance = np.sqrt((x - along * dx) ** 2 + (y - along * dy) ** 2 + (z - along * dz) ** 2)
        share0, radius0 = _profile(float(self.start_radius[i]) / canvas.voxel)
        share1, radius1 = _profile(float(self.end_radius[i]) / canvas.voxel)
        soft = np.clip(0.5 + radius0 + along * (radius1 - radius0) - distance / canvas.voxel, 0, 1)
        return np.asarray(soft * (share0 + along * (share1 - share0)))


def _profile(radius: float) -> tuple[float, float]:
    """Peak share and radius, in voxels, of the profile share * clip(1/2 + r - distance, 0, 1) of a tube.

    Its integral over the cross-section is pi share (r² + 1/12) for r >= 1/2, so that pi radius² is kept exactly:
    by a smaller r down to r = 1/2, then by a lower peak.
    """
    squared = radius * radius
    if squared >= 1 / 3:
        return 1.0, float(np.sqrt(squared - 1 / 12))
    return 3 * squared, 0.5


def path(points: np.ndarray, radii: float | np.ndarray, pieces: int) -> Tubes:
    """A smooth tube through `points` (k, 3), radii one number or (k,), cut into `pieces` capsules."""
    points = np.asarray(points, np.float64)
    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    knots = np.concatenate([[0.0], np.cumsum(lengths)]) / lengths.sum()
    at = np.linspace(0, 1, pieces + 1)
    line = CubicSpline(knots, points)(at)
    radius = np.interp(at, knots, np.broadcast_to(radii, len(points)))
    return Tubes(line[:-1], line[1:], radius[:-1], radius[1:])


def grow(root: np.ndarray, targets: np.ndarray, tip_radius: float, rng: np.random.Generator) -> Tubes:
    """A tree that supplies every target: each branch walks towards its targets' mean, then splits them in two.

    Args:
        root: where the trunk starts, (3,).
        targets: the tips, (n, 3), n >= 1.
        tip_radius: radius of a branch with one target; a branch of n has tip_radius * n**(1 / MURRAY).
        rng: bends the branches and varies the splits.
    """
    pieces: list[tuple[np.ndarray, np.ndarray, float, float]] = []
    waiting = [(np.asarray(root, np.float64), np.asarray(targets, np.float64))]
    while waiting:
        start, group = waiting.pop()
        radius = tip_radius * len(group) ** (1 / MURRAY)
        reach = group.mean(axis=0) - start
        end = start + reach * (rng.uniform(0.35, 0.55) if len(group) > 1 else 1.0)
        bend = rng.standard_normal(3) * 0.06 * np.linalg.norm(reach)
        middle = (start + end) / 2 + bend
        pieces += [(start, middle, radius, 0.95 * radius), (middle, end, 0.95 * radius, 0.85 * radius)]
        if len(group) > 1:
            waiting += [(end, half) for half in _split(group, end, reach, rng)]
    starts, ends, first, last = zip(*pieces, strict=True)
    return Tubes(np.array(starts), np.array(ends), np.array(first), np.array(last))


def _split(
    group: np.ndarray, at: np.ndarray, direction: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Two parts of `group` (n, 3) on either side of a plane that holds the branch's direction."""
    unit = direction / (np.linalg.norm(direction) + 1e-12)
    aside = group - at
    aside = aside - np.outer(aside @ unit, unit)
    widest = np.linalg.eigh(aside.T @ aside)[1][:, -1]
    widest *= np.sign(widest[np.argmax(np.abs(widest))])  # eigenvectors have no sign of their own
    order = np.argsort(aside @ widest, kind="stable")
    cut = int(np.clip(round(len(group) * rng.uniform(0.3, 0.7)), 1, len(group) - 1))
    return group[order[:cut]], group[order[cut:]]
