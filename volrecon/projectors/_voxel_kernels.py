"""The numba kernel of voxel-driven backprojection (see backproject.py)."""

import math

import numpy as np
from numba import njit, prange


@njit(parallel=True, cache=True, nogil=True)
def backproject(filtered, row0, first, last, forms, distance_power, z0, out):
    """Add sum over views of interpolated rows / depth^power to the slab `out` (z, y, x) starting at slice z0.

    `forms` are `ScanGeometry.pixel_forms` in voxel-index coordinates (x, y, z, 1). `filtered` holds detector rows from
    row0 on; samples whose lower row is one of [first, last) are taken, so that row blocks add up to the whole.
    """
    nz, ny, nx = out.shape
    rows, views, columns = filtered.shape
    for job in prange(nz * ny):
        z = job // ny
        y = job % ny
        for view in range(views):
            f = forms[view]
            u0 = f[0, 1] * y + f[0, 2] * (z + z0) + f[0, 3]
            v0 = f[1, 1] * y + f[1, 2] * (z + z0) + f[1, 3]
            du0 = f[2, 1] * y + f[2, 2] * (z + z0) + f[2, 3]
            dv0 = f[3, 1] * y + f[3, 2] * (z + z0) + f[3, 3]
            for x in range(nx):
                depth = f[2, 0] * x + du0
                per = 1.0 / depth
                u = (f[0, 0] * x + u0) * per
                v = (f[1, 0] * x + v0) / (f[3, 0] * x + dv0)
                if not (-1.0 < u < columns and first <= v < last):
                    continue
                iu = math.floor(u)
                fu = np.float32(u - iu)
                fv = np.float32(v - math.floor(v))
                iv = math.floor(v) - row0
                low = np.float32(0.0)
                high = np.float32(0.0)
                if iv >= 0:
                    if iu >= 0:
                        low += (np.float32(1.0) - fu) * filtered[iv, view, iu]
                    if iu + 1 < columns:
                        low += fu * filtered[iv, view, iu + 1]
                if iv + 1 < rows:
                    if iu >= 0:
                        high += (np.float32(1.0) - fu) * filtered[iv + 1, view, iu]
                    if iu + 1 < columns:
                        high += fu * filtered[iv + 1, view, iu + 1]
                value = low + fv * (high - low)
                if distance_power == 2:
                    value *= np.float32(per * per)
                out[z, y, x] += value
