"""Where every ray and every voxel is, in millimetres, in ASTRA's world frame.

World vectors are (x, y, z); arrays are (z, y, x) and (v, angle, u). The gantry turns counter-clockwise about +z and
the source is at (0, -source_to_object, 0) at angle 0.
"""

from volrecon.geometry.coverage import Coverage, coverage, suggest_grid
from volrecon.geometry.scan import ScanGeometry
from volrecon.geometry.trajectories import cone, fan, from_vectors, helical, parallel
from volrecon.geometry.volume import VolumeGeometry

__all__ = [
    "Coverage",
    "ScanGeometry",
    "VolumeGeometry",
    "cone",
    "coverage",
    "fan",
    "from_vectors",
    "helical",
    "parallel",
    "suggest_grid",
]
