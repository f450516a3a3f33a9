"""Voxel-driven, distance-weighted backprojection: for FDK and FBP only, never an adjoint."""

import numpy as np

from volrecon.geometry import ScanGeometry, VolumeGeometry
from volrecon.projectors import _voxel_kernels
from volrecon.projectors.operator import shadow_rows


class VoxelBackprojector:
    """Sum over views of the bilinearly interpolated projections, each over depth^2 (cone, fan) or as is (parallel).

    `depth` is 0 at the source and 1 on the detector.
    """

    def __init__(self, volume: VolumeGeometry, scan: ScanGeometry) -> None:
        self.volume, self.scan = volume, scan
        forms = scan.pixel_forms()
        linear = forms[:, :, :3] * volume.voxel_xyz_mm
        constant = forms[:, :, 3] + forms[:, :, :3] @ volume.origin_xyz_mm
        self._forms = np.ascontiguousarray(np.concatenate([linear, constant[:, :, None]], axis=2))

    def rows(self, start: int, stop: int) -> slice:
        """Detector rows that slices [start, stop) fall on."""
        return shadow_rows(self.volume, self.scan, slice(start, stop))

    def add(self, filtered: np.ndarray, row: int, owned: slice, start: int, out: np.ndarray) -> None:
        """Add what rows of filtered projections (v, angle, u) contribute to slices `start` on of the volume.

        Args:
            filtered: detector rows from `row` on.
            owned: a sample between rows k and k + 1 is taken if k is one of these; over -1 and all rows, each is taken
                once.
            out: the slices, (z, y, x) float32.
        """
        power = 0 if self.scan.beam == "parallel" else 2
        _voxel_kernels.backproject(filtered, row, owned.start, owned.stop, self._forms, power, start, out)
