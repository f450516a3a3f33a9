"""The numba kernels of the Joseph projector: every ray is marched along its dominant axis.

A ray is affine in the detector's indices: six 3-vectors a view (`ScanGeometry.index_rays`) give its origin and
direction in voxel-index coordinates. At plane m of the dominant axis it meets the plane at (p, q); the sample is the
bilinear interpolation there, its weight the ray's length between two planes (Joseph, IEEE TMI 1(3), 1982). Voxels
outside the volume are air, so the outermost half voxel fades out.

`forward` and `adjoint` evaluate p and q from absolute indices with the same expressions, in float64 and without
fast-math: the pair is matched to rounding, and a view block, a row block or another thread count gives the same bytes.
So does a slab in the backprojection; forward projections of slabs are sums, equal to rounding.
The slow plane axis p, the fast one q and the memory strides depend on the march axis alone:

    march x: p = z, q = y        march y: p = z, q = x        march z: p = y, q = x
"""

import math

import numpy as np
from numba import njit, prange


@njit(inline="always")
def _ray(rays, view, row, column):
    """Origin and direction of a ray in index coordinates (x, y, z)."""
    ox = rays[view, 0, 0] + column * rays[view, 1, 0] + row * rays[view, 2, 0]
    oy = rays[view, 0, 1] + column * rays[view, 1, 1] + row * rays[view, 2, 1]
    oz = rays[view, 0, 2] + column * rays[view, 1, 2] + row * rays[view, 2, 2]
    dx = rays[view, 3, 0] + column * rays[view, 4, 0] + row * rays[view, 5, 0]
    dy = rays[view, 3, 1] + column * rays[view, 4, 1] + row * rays[view, 5, 1]
    dz = rays[view, 3, 2] + column * rays[view, 4, 2] + row * rays[view, 5, 2]
    return ox, oy, oz, dx, dy, dz


@njit(inline="always")
def _dominant(dx, dy, dz):
    ax, ay, az = abs(dx), abs(dy), abs(dz)
    if ax >= ay and ax >= az:
        return 0
    return 1 if ay >= az else 2


@njit(inline="always")
def _line(axis, ox, oy, oz, dx, dy, dz, voxel):
    """p = p0 + m dp, q = q0 + m dq, and the length of the ray between two planes in mm."""
    length = math.sqrt((dx * voxel[0]) ** 2 + (dy * voxel[1]) ** 2 + (dz * voxel[2]) ** 2)
    if axis == 0:
        per = 1.0 / dx
        dp, dq = dz * per, dy * per
        return oz - ox * dp, dp, oy - ox * dq, dq, length * abs(per)
    if axis == 1:
        per = 1.0 / dy
        dp, dq = dz * per, dx * per
        return oz - oy * dp, dp, ox - oy * dq, dq, length * abs(per)
    per = 1.0 / dz
    dp, dq = dy * per, dx * per
    return oy - oz * dp, dp, ox - oz * dq, dq, length * abs(per)


@njit(inline="always")
def _layout(axis, ny, nx, z0, z1):
    """Of the slab [z0, z1): march range, range of p, range of q, and memory strides of m, p, q."""
    if axis == 0:
        return 0, nx, z0, z1, ny, 1, ny * nx, nx
    if axis == 1:
        return 0, ny, z0, z1, nx, nx, ny * nx, 1
    return z0, z1, 0, ny, nx, ny * nx, nx, 1


@njit(inline="always")
def _span(start, step, low, high, first, last):
    """The m of [first, last) with low < start + m step < high, as [a, b)."""
    if first >= last:
        return first, first
    begin, end = start + first * step, start + (last - 1) * step
    if low < begin < high and low < end < high:
        return first, last
    if (begin <= low and end <= low) or (begin >= high and end >= high):
        return first, first
    m0, m1 = (low - start) / step, (high - start) / step
    a = int(min(max(min(m0, m1) - 1.0, first), last))
    b = int(min(max(max(m0, m1) + 2.0, first), last))
    while a < b and not (low < start + a * step < high):
        a += 1
    while b > a and not (low < start + (b - 1) * step < high):
        b -= 1
    return a, b


@njit(inline="always")
def _interior(a, b, p0, dp, q0, dq, pa, pb, nq):
    """The planes of [a, b) on which all four neighbours of the sample are voxels."""
    a, b = _span(p0, dp, np.nextafter(pa, -np.inf), pb - 1.0, a, b)
    return _span(q0, dq, np.nextafter(0.0, -np.inf), nq - 1.0, a, b)


@njit(inline="always")
def _edge_sample(volume, m, m_first, p0, dp, q0, dq, pa, pb, nq, sm, sp, sq):
    """The sample on plane m where some neighbours may lie outside."""
    p = p0 + m * dp
    q = q0 + m * dq
    ip = math.floor(p)
    iq = math.floor(q)
    fp = np.float32(p - ip)
    fq = np.float32(q - iq)
    one = np.float32(1.0)
    i = (m - m_first) * sm + (ip - pa) * sp + iq * sq
    total = np.float32(0.0)
    if pa <= ip < pb:
        if 0 <= iq < nq:
            total += (one - fp) * (one - fq) * volume[i]
        if 0 <= iq + 1 < nq:
            total += (one - fp) * fq * volume[i + sq]
    if pa <= ip + 1 < pb:
        if 0 <= iq < nq:
            total += fp * (one - fq) * volume[i + sp]
        if 0 <= iq + 1 < nq:
            total += fp * fq * volume[i + sp + sq]
    return total


@njit(inline="always")
def _march(volume, a, b, m_first, p0, dp, q0, dq, pa, pb, nq, sm, sp, sq):
    """Sum of one ray's samples over planes [a, b) of a flat slab."""
    total = np.float32(0.0)
    inner_a, inner_b = _interior(a, b, p0, dp, q0, dq, pa, pb, nq)
    for m in range(a, inner_a):
        total += _edge_sample(volume, m, m_first, p0, dp, q0, dq, pa, pb, nq, sm, sp, sq)
    for m in range(inner_a, inner_b):
        p = p0 + m * dp
        q = q0 + m * dq
        ip = int(p)  # floor: p and q are not negative here
        iq = int(q)
        fp = np.float32(p - ip)
        fq = np.float32(q - iq)
        j = np.uintp((m - m_first) * sm + (ip - pa) * sp + iq * sq)
        low = volume[j] + fq * (volume[j + np.uintp(sq)] - volume[j])
        j += np.uintp(sp)
        high = volume[j] + fq * (volume[j + np.uintp(sq)] - volume[j])
        total += low + fp * (high - low)
    for m in range(inner_b, b):
        total += _edge_sample(volume, m, m_first, p0, dp, q0, dq, pa, pb, nq, sm, sp, sq)
    return total


@njit(parallel=True, cache=True, nogil=True)
def forward(volume, z0, voxel, rays, row0, out):
    """Line integrals of the slab `volume` (z, y, x) that starts at slice z0, written to `out` (v, angle, u)."""
    nz, ny, nx = volume.shape
    flat = volume.reshape(-1)
    rows, views, columns = out.shape
    for job in prange(rows * views):
        row = job // views
        view = job % views
        for column in range(columns):
            ox, oy, oz, dx, dy, dz = _ray(rays, view, row0 + row, column)
            axis = _dominant(dx, dy, dz)
            p0, dp, q0, dq, length = _line(axis, ox, oy, oz, dx, dy, dz, voxel)
            first, last, pa, pb, nq, sm, sp, sq = _layout(axis, ny, nx, z0, z0 + nz)
            a, b = _span(p0, dp, pa - 1.0, pb + 0.0, first, last)
            a, b = _span(q0, dq, -1.0, nq + 0.0, a, b)
            total = _march(flat, a, b, first, p0, dp, q0, dq, pa, pb, nq, sm, sp, sq)
            out[row, view, column] = total * np.float32(length)


@njit(inline="always")
def _spread(volume, value, a, b, m_first, p0, dp, q0, dq, pa, pb, nq, sm, sp, sq):
    """The transpose of `_march`: add `value` at one ray's samples on planes [a, b) of a flat slab."""
    one = np.float32(1.0)
    for m in range(a, b):
        p = p0 + m * dp
        q = q0 + m * dq
        ip = int(p + 1.0) - 1
        iq = int(q + 1.0) - 1
        fp = np.float32(p - ip)
        fq = np.float32(q - iq)
        low = value * (one - fp)
        high = value * fp
        i = (m - m_first) * sm + (ip - pa) * sp + iq * sq
        if ip >= pa and ip + 1 < pb and iq >= 0 and iq + 1 < nq:
            j = np.uintp(i)
            volume[j] += low * (one - fq)
            volume[j + np.uintp(sq)] += low * fq
            j += np.uintp(sp)
            volume[j] += high * (one - fq)
            volume[j + np.uintp(sq)] += high * fq
        else:
            if pa <= ip < pb:
                if 0 <= iq < nq:  # rounding can make iq = nq
                    volume[i] += low * (one - fq)
                if iq + 1 < nq:
                    volume[i + sq] += low * fq
            if pa <= ip + 1 < pb:
                if 0 <= iq < nq:  # rounding can make iq = nq
                    volume[i + sp] += high * (one - fq)
                if iq + 1 < nq:
                    volume[i + sp + sq] += high * fq


@njit(parallel=True, cache=True, nogil=True)
def axes_used(rays, row0, rows, columns):
    """Whether any ray of a view is dominant in x, y, z: bool (views, 3)."""
    views = rays.shape[0]
    used = np.zeros((views, 3), dtype=np.bool_)
    for view in prange(views):
        for row in range(rows):
            for column in range(columns):
                _, _, _, dx, dy, dz = _ray(rays, view, row0 + row, column)
                used[view, _dominant(dx, dy, dz)] = True
    return used


@njit(parallel=True, cache=True, nogil=True)
def adjoint(axis, projections, row0, rays, used, voxel, z0, planes, out):
    """Add the transpose of the rays that march along `axis` to the slab `out` (z, y, x) that starts at slice z0.

    `planes` is how many planes of the march axis a thread owns at a time; the result does not depend on it.
    A ray dominant in x writes only plane x at step x, so whoever owns a block of planes owns their bytes: no
    atomics, no buffers, and a fixed order of summation (row, view, column).
    """
    nz, ny, nx = out.shape
    flat = out.reshape(-1)
    rows, views, columns = projections.shape
    first, last, pa, pb, nq, sm, sp, sq = _layout(axis, ny, nx, z0, z0 + nz)
    for block in prange((last - first + planes - 1) // planes):
        b0 = first + block * planes
        b1 = min(last, b0 + planes)
        for row in range(rows):
            for view in range(views):
                if not used[view, axis]:
                    continue
                for column in range(columns):
                    ox, oy, oz, dx, dy, dz = _ray(rays, view, row0 + row, column)
                    if _dominant(dx, dy, dz) != axis:
                        continue
                    p0, dp, q0, dq, length = _line(axis, ox, oy, oz, dx, dy, dz, voxel)
                    a, b = _span(p0, dp, pa - 1.0, pb + 0.0, b0, b1)
                    a, b = _span(q0, dq, -1.0, nq + 0.0, a, b)
                    value = projections[row, view, column] * np.float32(length)
                    _spread(flat, value, a, b, first, p0, dp, q0, dq, pa, pb, nq, sm, sp, sq)
