"""Scans of spheres, whose line integrals are known: of any size, made row block by row block."""

import numpy as np

from volrecon.geometry import VolumeGeometry, cone
from volrecon.store import ScanHeader, write_scan

WATER = 0.02

# Centre (x, y, z) and radius, as parts of half the volume's side; attenuation as a part of water's.
SPHERES = [
    ((0.0, 0.0, 0.0), 0.85, 1.0),
    ((0.3, -0.2, 0.25), 0.3, 0.4),
    ((-0.35, 0.25, -0.3), 0.25, -0.8),
    ((0.05, 0.4, 0.1), 0.12, 1.2),
]
ROWS = 8


def sphere_scan(path, voxels, views, side_mm=256.0):
    """Write a cone-beam scan of a cube of `voxels`^3; detector of as many pixels, full turn."""
    voxel = side_mm / voxels
    grid = VolumeGeometry((voxels, voxels, voxels), (voxel, voxel, voxel))
    scan = cone(
        source_to_object_mm=3 * side_mm,
        source_to_detector_mm=4.5 * side_mm,
        detector_shape=(voxels, voxels),
        pixel_mm=1.7 * voxel,
        angles=2 * np.pi * np.arange(views) / views,
    )
    blocks = (line_integrals(scan, start, min(start + ROWS, voxels), side_mm / 2) for start in range(0, voxels, ROWS))
    write_scan(path, ScanHeader(scan, grid, water_per_mm=WATER, provenance={"object": "spheres"}), blocks)


def line_integrals(scan, start, stop, half):
    """Rows [start, stop) of the projections, (v, angle, u): attenuation times the length of each ray in each sphere."""
    rows = np.arange(start, stop) - (scan.detector_shape[0] - 1) / 2
    columns = np.arange(scan.detector_shape[1]) - (scan.detector_shape[1] - 1) / 2
    out = np.zeros((stop - start, scan.views, scan.detector_shape[1]))
    for view in range(scan.views):
        pixel = scan.detector[view] + rows[:, None, None] * scan.v[view] + columns[:, None] * scan.u[view]
        direction = pixel - scan.source[view]
        direction /= np.linalg.norm(direction, axis=2, keepdims=True)
        for centre, radius, part in SPHERES:
            to_centre = np.array(centre) * half - scan.source[view]
            along = direction @ to_centre
            squared = (radius * half) ** 2 - (to_centre @ to_centre - along**2)
            out[:, view] += part * WATER * 2 * np.sqrt(np.maximum(squared, 0))
    return out
