"""`joseph`: the matched projector of the CPU, for every geometry, in numba."""

from typing import Any

import numpy as np
from numba import get_num_threads

from volrecon.geometry import ScanGeometry, VolumeGeometry
from volrecon.projectors import _joseph_kernels as kernels
from volrecon.projectors.operator import Operator

CACHE_LINE = 16  # float32 values


class Joseph(Operator):
    """Joseph's interpolation along each ray's dominant axis and its exact transpose (`_joseph_kernels`).

    Serves cone, fan and parallel beams, any trajectory, and voxels of any three sizes.
    """

    def __init__(self, volume_geometry: VolumeGeometry, scan_geometry: ScanGeometry) -> None:
        super().__init__(volume_geometry, scan_geometry)
        self._voxel = volume_geometry.voxel_xyz_mm
        self._whole_rays = scan_geometry.index_rays(volume_geometry)
        self._restricted()

    @classmethod
    def check(cls, volume: VolumeGeometry, scan: ScanGeometry) -> None:
        """Serves them all."""

    def _restricted(self) -> None:
        self._rays = self._whole_rays if self.views is None else self._whole_rays[self.views]

    def _forward(self, x: Any, y: Any) -> None:
        if y.size:
            kernels.forward(x, self.slices.start, self._voxel, self._rays, self.rows.start, y)

    def _adjoint(self, y: Any, x: Any) -> None:
        x[:] = 0
        if not y.size:
            return
        rows, _, columns = y.shape
        used = kernels.axes_used(self._rays, self.rows.start, rows, columns)
        for axis in np.flatnonzero(used.any(axis=0)):
            planes = _planes_a_block(x.shape[2 - axis])
            kernels.adjoint(int(axis), y, self.rows.start, self._rays, used, self._voxel, self.slices.start, planes, x)


def _planes_a_block(count: int) -> int:
    """Two blocks a thread, where that leaves 16 to 64 planes to a block.

    Whole cache lines of x (16 values), so that threads owning neighbouring x planes do not share one.
    """
    wanted = count // (2 * get_num_threads() * CACHE_LINE) * CACHE_LINE
    return min(max(wanted, CACHE_LINE), 4 * CACHE_LINE)
