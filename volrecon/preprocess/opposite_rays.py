"""How well opposite rays agree when the rotation axis is on a given column.

In the plane across the axis every line is measured twice in a full turn, from either side. If the axis is on another
column than assumed, the two measurements of what is taken for one line differ.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from volrecon.geometry import ScanGeometry
from volrecon.preprocess.middle_plane import Plane, axis_column, without_stripes
from volrecon.preprocess.window import Window

SMOOTH, LAG = 2.0, 6
"""Pixels: a Gaussian along u before rays are interpolated, and the distance over which they are differenced."""

BLOCKS = 8
"""Groups of rays, for the uncertainty."""

MOST_GAP = 2.5
"""Between two views that an opposite ray is interpolated from, in typical steps."""

UNDECIDED = 0.1
"""Part of all edges that counts as disagreeing in every comparison, so that a narrow overlap seldom wins."""


@dataclass(frozen=True)
class Mismatch:
    """What rays differ by from opposite ones, and the edges in both, as sums of squares: (candidates, groups)."""

    differences: np.ndarray
    edges: np.ndarray

    @property
    def ratio(self) -> np.ndarray:
        """The part of the edges that disagrees, per candidate: 0 where opposite rays are equal, 1 where unrelated."""
        ratio: np.ndarray = self.differences.sum(axis=1) / np.maximum(self.edges.sum(axis=1), 1e-30)
        return ratio

    def curve(self, left_out: int | None = None) -> np.ndarray:
        """What is to be minimised over the candidates, without one group of rays: near 1 where nothing agrees."""
        differences, edges = self.differences.sum(axis=1), self.edges.sum(axis=1)
        if left_out is not None:
            differences = differences - self.differences[:, left_out]
            edges = edges - self.edges[:, left_out]
        undecided = UNDECIDED * edges.max() + 1e-30
        ratio: np.ndarray = (differences + undecided) / (edges + undecided)
        return ratio


class OppositeRays:
    """Compares rays of sinograms in a plane, averaged over `bin_u` columns, with their opposite ones.

    The rays of at most `base_views` views are compared; opposite ones come from all views.
    """

    def __init__(self, plane: Plane, bin_u: int, base_views: int) -> None:
        count = plane.sinograms.shape[2]
        self.window = Window.of((1, count), bin_vu=(1, bin_u))
        self.scan = self.window.geometry(plane.scan)
        blocks = plane.sinograms[:, :, : self.scan.shape[2] * bin_u]
        binned = blocks.reshape(*blocks.shape[:2], -1, bin_u).mean(axis=3)
        self.rays = gaussian_filter1d(without_stripes(binned), SMOOTH, axis=2, mode="nearest").astype(np.float32)
        self.angles = np.unwrap(self.scan.angles)
        self.typical = float(np.median(np.diff(self.angles))) if len(self.angles) > 1 else 2 * np.pi
        self.closed = 2 * np.pi - (self.angles[-1] - self.angles[0]) < MOST_GAP * self.typical
        self.base = np.unique(np.linspace(0, len(self.angles) - 1, base_views).round().astype(int))
        self.at = axis_column(self.scan)

    def mismatch(self, candidates: np.ndarray) -> Mismatch:
        """Of the axis on each of these columns of the detector."""
        sums = [self._compare(self.window.from_detector(column)) for column in candidates]
        differences, edges = np.array(sums).transpose(1, 0, 2)
        return Mismatch(differences, edges)

    def interpolation_px(self, column: float) -> float:
        """About how far interpolation between views may move the lowest mismatch, in columns of the detector.

        Over an angle d to the view before and e to the one behind, a point at the distance s from the axis is off by
        s d e / 2; a sixth of the detector's width stands for s / 2. In a closed turn this cancels.
        """
        if self.closed:
            return 0.0
        angles, _, slack = self._continued(self.window.from_detector(column))
        pairs = self._pairs(angles, slack, self.window.from_detector(column))
        squares = (pairs.between * (1 - pairs.between) * pairs.gap**2)[pairs.inside]
        return float(squares.mean()) * self.scan.shape[2] / 6 * self.window.bin_vu[1] if squares.size else 0.0

    def _compare(self, column: float) -> np.ndarray:
        """Sums of squares of differences and edges, (2, groups)."""
        angles, rays, slack = self._continued(column)
        pairs = self._pairs(angles, slack, column)
        left = np.clip(pairs.opposite.astype(int), 0, rays.shape[2] - 2)
        part = (pairs.opposite - left).astype(np.float32)
        low, high = (
            rays[:, near, left] * (1 - part) + rays[:, near, left + 1] * part for near in (pairs.below, pairs.below + 1)
        )
        own = self.rays[:, pairs.views[:, None], pairs.columns]
        between = pairs.between.astype(np.float32)
        return _grouped(own, low * (1 - between) + high * between, pairs.inside)

    def _pairs(self, angles: np.ndarray, slack: float, column: float) -> "Pairs":
        columns, opposite, turned = _opposite(self.scan, column - self.at)
        start = angles[0] - slack
        target = start + np.mod(self.angles[self.base][:, None] + turned - start, 2 * np.pi)
        below = np.clip(np.searchsorted(angles, target, side="right") - 1, 0, len(angles) - 2)
        gap = angles[below + 1] - angles[below]
        inside = (target <= angles[-1] + slack) & (target >= start) & (gap < MOST_GAP * self.typical)
        met = inside.any(axis=1)
        between = np.clip((target - angles[below]) / gap, 0, 1)
        return Pairs(self.base[met], columns, opposite, below[met], between[met], gap[met], inside[met])

    def _continued(self, column: float) -> tuple[np.ndarray, np.ndarray, float]:
        """Angles and views to take opposite rays from, and how far beyond their ends a ray may lie.

        A closed turn comes to its first view again. The open arc of a parallel beam gets the mirror image of one view
        at either end: the first view of a half turn then has its opposite between the last and the mirrored second,
        even if the half turn stops one view short.
        """
        angles, rays, last = self.angles, self.rays, len(self.angles) - 1
        slack = 0.25 * self.typical
        if self.closed:
            return np.append(angles, angles[0] + 2 * np.pi), np.append(rays, rays[:, :1], axis=1), slack
        if self.scan.beam != "parallel" or last < 2:
            return angles, rays, slack
        little = 1e-3 * self.typical
        after = max(1, int(np.argmax(angles + np.pi > angles[-1] + little)))
        before = min(last - 1, last - int(np.argmax(angles[::-1] - np.pi < angles[0] - little)))
        mirrored = [_mirrored(rays[:, view], column)[:, None] for view in (before, after)]
        ends = angles[before] - np.pi, angles[after] + np.pi
        # A mirrored view is never compared with itself.
        angles = np.concatenate([ends[:1], angles, ends[1:]])
        return angles, np.concatenate([mirrored[0], rays, mirrored[1]], axis=1), -little


@dataclass(frozen=True)
class Pairs:
    """Rays and where their opposite ones are: `views` and `columns` of the rays, `opposite` column (columns,), and
    (views, columns) each the view `below`, the part of the way `between` it and the next, the angle of that `gap`, and
    whether the ray has an opposite one at all (`inside`).
    """

    views: np.ndarray
    columns: np.ndarray
    opposite: np.ndarray
    below: np.ndarray
    between: np.ndarray
    gap: np.ndarray
    inside: np.ndarray


def _opposite(scan: ScanGeometry, shift: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns whose opposite ray falls on the detector too, when that is moved by `shift` columns against the axis.

    Returns:
        The columns, the column of each one's opposite ray, and the angle to turn the gantry by until it is measured.
    """
    rays = scan.rays()[0]
    columns = np.arange(scan.shape[2], dtype=float)
    moved = columns[:, None] - shift
    origin, direction = rays[0] + moved * rays[1], rays[3] + moved * rays[4]
    direction = direction / np.linalg.norm(direction, axis=1, keepdims=True)
    heading = np.unwrap(np.arctan2(direction[:, 1], direction[:, 0]))
    distance = origin[:, 0] * direction[:, 1] - origin[:, 1] * direction[:, 0]
    if distance[-1] < distance[0]:
        distance = -distance
    opposite = np.interp(-distance, distance, columns, left=np.nan, right=np.nan)
    inside = np.flatnonzero(~np.isnan(opposite))
    opposite = opposite[inside]
    return inside, opposite, heading[inside] - np.interp(opposite, columns, heading) + np.pi


def _mirrored(view: np.ndarray, column: float) -> np.ndarray:
    """Rows (rows, u) reversed about a column; beyond the ends they repeat the last value."""
    count = view.shape[1]
    at = np.clip(2 * column - np.arange(count), 0, count - 1)
    left = np.minimum(at.astype(int), count - 2)
    part = (at - left).astype(view.dtype)
    mirrored: np.ndarray = view[:, left] * (1 - part) + view[:, left + 1] * part
    return mirrored


def _grouped(own: np.ndarray, other: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Sums over groups of rays of squared differences, and of squared edges of both, (2, groups)."""
    both = inside[:, LAG:] & inside[:, :-LAG]
    own, other = (side[..., LAG:] - side[..., :-LAG] for side in (own, other))
    rows, views, columns = own.shape
    group = (np.arange(rows)[:, None, None] + _block(views)[:, None] + _block(columns)) % BLOCKS
    each = (own - other) ** 2 * both, (own**2 + other**2) * both
    return np.array([np.bincount(group.ravel(), part.ravel(), BLOCKS) for part in each])


def _block(count: int) -> np.ndarray:
    """Which of BLOCKS equal parts each of `count` indices is in."""
    return np.arange(count) * BLOCKS // max(count, 1)
