"""Projections of a cylindrical detector, resampled to a flat one.

Coordinates are (u, ahead, w) in mm from the cylinder's axis: u along the columns, ahead to the middle of the detector,
w along the rows and the axis. The focal spot is at the origin or, when it flies, near it. The flat detector touches the
cylinder ahead of the origin. Every flat pixel takes the value of the very ray that ends in it, linearly interpolated
between the four pixels around the point where that ray crosses the cylinder.
"""

from dataclasses import dataclass

import numpy as np

from volrecon.errors import DataError

LARGEST_FAN_DEG = 80.0
"""To either side; a flat detector does not reach much further."""


@dataclass(frozen=True, eq=False)
class CurvedDetector:
    """Pixels on a cylinder: `angles` (columns,) in radians to u, and `heights_mm` (rows,) along w, `row_mm` apart.

    Both rise in equal steps. Focal spots lie within the cylinder.

    Raises:
        DataError: pixels that a flat detector cannot take the place of.
    """

    radius_mm: float
    angles: np.ndarray
    heights_mm: np.ndarray
    row_mm: float

    def __post_init__(self) -> None:
        if len(self.angles) < 2 or np.rad2deg(np.abs(self.angles).max()) > LARGEST_FAN_DEG:
            raise DataError(
                f"its curved detector has {len(self.angles)} columns from {np.rad2deg(self.angles[0]):.1f} to "
                f"{np.rad2deg(self.angles[-1]):.1f} degrees; it needs at least 2, within {LARGEST_FAN_DEG:.0f} degrees"
            )

    @property
    def step(self) -> float:
        """Radians from one column to the next."""
        return float(self.angles[1] - self.angles[0])

    def flat_grid(self, sources_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels u (columns,) and w (rows,) of a flat detector which all views (views, 3) see through the curved one.

        They are as wide and high as the curved ones ahead. Rows are those of the curved detector.
        """
        first, last = self.radius_mm * np.tan(self.angles[[0, -1]])
        step = self.radius_mm * self.step
        count = int((last - first) / step + 1e-9) + 1
        u, w = (first + last) / 2 + (np.arange(count) - (count - 1) / 2) * step, self.heights_mm
        seen_u, seen_w = np.ones(len(u), bool), np.ones(len(w), bool)
        for source in np.unique(np.round(sources_mm, 3), axis=0):
            rows, columns = self._crossings(source, u, w)
            seen_u &= np.abs(columns - (len(self.angles) - 1) / 2) <= len(self.angles) / 2
            seen_w &= (np.abs(rows - (len(w) - 1) / 2) <= len(w) / 2)[:, seen_u].all(axis=1)
        if not (seen_u.any() and seen_w.any()):
            raise DataError(
                "its focal spots are so far from the middle of its curved detector that no flat one serves all"
            )
        return u[seen_u], w[seen_w]

    def flattened(self, image: np.ndarray, source_mm: np.ndarray, u: np.ndarray, w: np.ndarray) -> np.ndarray:
        """The image (rows, columns) of one view as the flat pixels (w, u) would see it."""
        rows, columns = self._crossings(source_mm, u, w)
        top, row = _between(rows, image.shape[0])
        left, column = _between(np.broadcast_to(columns, rows.shape), image.shape[1])
        below, right = np.minimum(top + 1, image.shape[0] - 1), left + 1
        upper = image[top, left] * (1 - column) + image[top, right] * column
        lower = image[below, left] * (1 - column) + image[below, right] * column
        return upper * (1 - row) + lower * row

    def _crossings(self, source: np.ndarray, u: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where rays to flat pixels cross the curved detector: its row (w, u) and column (u,), not rounded."""
        to_u, to_ahead = u - source[0], self.radius_mm - source[1]
        inside = self.radius_mm**2 - source[0] ** 2 - source[1] ** 2
        if not (inside > 0 and to_ahead > 0):
            raise DataError(
                f"a focal spot at {source.tolist()} mm is not within its detector's radius {self.radius_mm}"
            )
        squared, along = to_u**2 + to_ahead**2, source[0] * to_u + source[1] * to_ahead
        part = (np.sqrt(along**2 + squared * inside) - along) / squared
        angle = np.arctan2(source[0] + part * to_u, source[1] + part * to_ahead)
        height = source[2] + part * (w[:, None] - source[2])
        rows, columns = (height - self.heights_mm[0]) / self.row_mm, (angle - self.angles[0]) / self.step
        return rows, columns


def _between(index: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The pixel before each place, and how far behind it the place lies; half a pixel beyond the edge is the edge."""
    index = np.clip(index, 0, count - 1)
    before = np.minimum(index.astype(np.intp), max(count - 2, 0))
    return before, index - before
