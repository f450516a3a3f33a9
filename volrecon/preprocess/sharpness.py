"""How sharp the picture is when the rotation axis is on a given column: a second opinion on where it lies.

The total variation of a coarse filtered backprojection is least where edges meet themselves. This uses every view of a
half turn, of which the comparison of opposite rays sees little more than the two ends.
"""

import numpy as np

from volrecon.geometry import ScanGeometry, VolumeGeometry
from volrecon.preprocess.middle_plane import Plane, moved_axis, without_stripes
from volrecon.preprocess.window import Window
from volrecon.projectors.backproject import VoxelBackprojector
from volrecon.solvers.filtering import angular_weights, cosine_weights, ramp_filtered, redundancy_weights

MOST_COLUMNS, MOST_ROWS, MOST_VIEWS = 256, 3, 240
VOXELS = 112
CUTOFF = 0.3
"""Of the ramp, as a part of the Nyquist frequency: noise has a total variation too."""


class Sharpness:
    """Pictures of up to three rows of a plane, filtered for an axis near `column`."""

    def __init__(self, plane: Plane, column: float) -> None:
        _, views, count = plane.sinograms.shape
        self.window = Window.of((1, count), bin_vu=(1, -(-count // MOST_COLUMNS)))
        chosen = np.unique(np.linspace(0, views - 1, min(views, MOST_VIEWS)).round().astype(int))
        scan = self.window.geometry(plane.scan).select(chosen)
        arc = np.ptp(np.unwrap(plane.scan.angles))
        self.once = scan.beam == "parallel" and arc < np.pi * (1 + 2 / views)
        self.scan = moved_axis(scan, self.window.from_detector(column))
        rows = _strongest(np.stack([self.window.sums(row[None])[0] for row in plane.sinograms[:, chosen]]))
        spacing = self.scan.pixel_vu_mm[1] / self.scan.magnification
        angles, full_turn = angular_weights(self.scan)
        weights = redundancy_weights(self.scan, full_turn) * angles[:, None] * cosine_weights(self.scan, 0, 1)
        self.filtered = ramp_filtered((rows * weights).astype(np.float32), spacing, "hann", CUTOFF)
        voxel = spacing * self.scan.shape[2] / VOXELS
        self.grid = VolumeGeometry((len(rows), VOXELS, VOXELS), (1.0, voxel, voxel))

    @property
    def pixel(self) -> int:
        """Columns of the detector in one that this looks at."""
        return self.window.bin_vu[1]

    @property
    def telling(self) -> bool:
        """Whether the views cover half a turn of a parallel beam once, and are enough.

        Where more rays are opposite, a wrong axis blurs edges, which adds nothing to the total variation; and the
        streaks of few views are sharp wherever the axis is.
        """
        return self.once and self.scan.views >= self.scan.shape[2] / 4

    def blur(self, candidates: np.ndarray) -> np.ndarray:
        """Total variation of the pictures with the axis on each of these columns of the detector."""
        return np.array([self._variation(self.window.from_detector(column)) for column in candidates])

    def _variation(self, column: float) -> float:
        scan = moved_axis(self.scan, column)
        rows = len(self.filtered)
        stack = ScanGeometry(scan.beam, (rows, scan.shape[2]), scan.vectors)
        pictures = np.zeros((rows, *self.grid.shape[1:]), np.float32)
        VoxelBackprojector(self.grid, stack).add(self.filtered, 0, slice(-1, rows), 0, pictures)
        from_middle = np.arange(VOXELS - 1) - (VOXELS - 2) / 2
        seen = np.hypot(from_middle[:, None], from_middle) < VOXELS / 2 - 2
        down, right = np.diff(pictures, axis=1)[:, :, :-1], np.diff(pictures, axis=2)[:, :-1]
        return float(np.hypot(down, right)[:, seen].sum(dtype=np.float64))


def _strongest(rows: np.ndarray) -> np.ndarray:
    """The rows (of rows, views, u) with the strongest edges along u."""
    rows = without_stripes(rows)
    edges = (np.diff(rows, axis=2) ** 2).sum(axis=(1, 2))
    kept: np.ndarray = rows[np.argsort(-edges, kind="stable")[:MOST_ROWS]]
    return kept
