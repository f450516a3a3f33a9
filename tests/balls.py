"""Small scans of a ball with its exact line integrals, shared by the tests."""

import numpy as np

from volrecon.geometry import ScanGeometry, VolumeGeometry, cone, fan, helical, parallel
from volrecon.phantoms.shapes import ball_line_integral

GRID = VolumeGeometry((20, 16, 16), (2.0, 2.0, 2.0))
CENTRE, RADIUS, MU = (2.0, -1.0, 1.0), 10.0, 0.02
WIDE = {"detector_shape": (36, 32), "pixel_mm": 3.0}
FAR = {"source_to_object_mm": 200.0, "source_to_detector_mm": 300.0}


def small_scan(beam: str, views: int = 24) -> ScanGeometry:
    """A scan that sees the whole of GRID."""
    angles = 2 * np.pi * np.arange(views) / views
    if beam == "cone":
        return cone(**FAR, **WIDE, angles=angles)
    if beam == "fan":
        return fan(**FAR, columns=32, pixel_mm=3.0, rows=20, row_pitch_mm=2.0, angles=angles)
    if beam == "parallel":
        return parallel(detector_shape=(20, 32), pixel_mm=(2.0, 2.0), angles=angles)
    return helical(**FAR, **WIDE, angles=angles * 2, pitch_mm=12.0)


def ball_projections(scan: ScanGeometry) -> np.ndarray:
    """Exact line integrals of the ball, (v, angle, u) float32; no projector is involved."""
    rays = scan.rays()
    rows, columns = (np.arange(n) for n in scan.detector_shape)
    v, u = rows[:, None, None, None], columns[None, None, :, None]
    origin, direction = (
        rays[None, :, None, k] + u * rays[None, :, None, k + 1] + v * rays[None, :, None, k + 2] for k in (0, 3)
    )
    return ball_line_integral(origin, direction, CENTRE, RADIUS, MU).astype(np.float32)
