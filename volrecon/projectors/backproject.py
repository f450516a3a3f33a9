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

    def __call__(self, filtered: np.ndarray, rows: slice, start: int, stop: int) -> np.ndarray:
        """Slices [start, stop) from detector rows `rows` of filtered projections (v, angle, u)."""
        out = np.zeros((stop - start, *self.volume.shape[1:]), np.float32)
        power = 0 if self.scan.beam == "parallel" else 2
        _voxel_kernels.backproject(filtered, rows.start, self._forms, power, start, out)
        return out
