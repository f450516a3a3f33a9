"""What a scan sees of a volume, and the volume a scan suggests."""

import math
import warnings
from dataclasses import dataclass

import numpy as np

from volrecon.errors import GeometryError, GeometryWarning
from volrecon.geometry.scan import ScanGeometry
from volrecon.geometry.volume import VolumeGeometry

SAMPLES = 24  # points an axis at which coverage is evaluated


@dataclass(frozen=True)
class Coverage:
    """Fractions in [0, 1] of a volume's sampled voxels.

    Attributes:
        unseen: seen by no view.
        truncated_u: of the (voxel, view) pairs within the inscribed cylinder, those beside the detector.
    """

    unseen: float
    truncated_u: float

    def warn(self) -> None:
        """Warn (`GeometryWarning`) of voxels that no view sees."""
        if self.unseen > 0.005:
            warnings.warn(
                f"{self.unseen:.1%} of the volume is seen by no view; it will hold no information",
                GeometryWarning,
                stacklevel=2,
            )


def coverage(volume: VolumeGeometry, scan: ScanGeometry) -> Coverage:
    """How much of the volume the scan sees, after checking that the source stays outside it.

    Raises:
        GeometryError: the source is inside the volume's bounding sphere, or no voxel is seen at all.
    """
    _check_source(volume, scan)
    axes = [_sampled(n) for n in volume.shape]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    index = np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1)
    points = volume.origin_xyz_mm + index * volume.voxel_xyz_mm
    half = np.array(volume.shape[2:0:-1]) * volume.voxel_xyz_mm[:2] / 2
    in_cylinder = (((points[:, :2] - volume.centre_xyz_mm[:2]) / half) ** 2).sum(1) <= 1
    rows, columns = scan.detector_shape
    seen = np.zeros(len(points), dtype=bool)
    beside = pairs = 0
    for forms in scan.pixel_forms()[_sampled(scan.views, 180).astype(int)]:
        column, row = _pixels(forms, points)
        inside_u = (column > -0.5) & (column < columns - 0.5)
        inside_v = (row > -0.5) & (row < rows - 0.5)
        seen |= inside_u & inside_v
        beside += int((~inside_u & in_cylinder).sum())
        pairs += int(in_cylinder.sum())
    if not seen.any():
        raise GeometryError(
            f"no view sees the volume: 100% of it is outside the beam (centre {volume.centre_xyz_mm} mm, size "
            f"{tuple(float(s) for s in np.round(volume.size_xyz_mm, 3))} mm). Check its centre and the distances."
        )
    return Coverage(float(1 - seen.mean()), beside / max(pairs, 1))


def suggest_grid(scan: ScanGeometry, voxel_mm: float | None = None) -> VolumeGeometry:
    """A cubic-voxel grid for a scan: as wide as its field of view, as high as any ray inside it.

    The default voxel is the detector pixel seen at the rotation axis. For a cone beam the grid ends where the last
    ray leaves the field of view on the far side, beyond the axial shadow at the axis: cut any closer, what lies
    above would be pressed into the last slices.
    """
    rays = scan.rays()
    rows, columns = scan.detector_shape
    middle = rays[:, 0] + (rows - 1) / 2 * rays[:, 2], rays[:, 3] + (rows - 1) / 2 * rays[:, 5]
    edges = [_axis_distance(middle, rays, column) for column in (-0.5, columns - 0.5)]
    # An offset detector sees the wider side from opposite views; a centred one sees both.
    radius = float(np.mean(np.maximum(*edges)))
    pixel_v, pixel_u = scan.pixel_vu_mm
    voxel = float(voxel_mm or pixel_u / scan.magnification)
    wide = max(1, math.ceil(2 * radius / voxel - 1e-6))
    low, high = _height(scan, radius)
    # In a stack every detector row is one slice.
    stack = scan.beam == "fan" or (scan.beam == "parallel" and np.allclose(scan.source[:, 2], 0))
    voxel_z = pixel_v if stack and voxel_mm is None else voxel
    slices = max(1, math.ceil((high - low) / voxel_z - 1e-6))
    return VolumeGeometry((slices, wide, wide), (voxel_z, voxel, voxel), (0.0, 0.0, (low + high) / 2))


def _check_source(volume: VolumeGeometry, scan: ScanGeometry) -> None:
    if scan.beam == "parallel":
        return
    centre = np.array(volume.centre_xyz_mm)
    half_height = volume.size_xyz_mm[2] / 2
    # A volume longer than wide (a helical scan) is judged by a section as long as it is wide.
    radius = math.hypot(volume.radius_xy_mm, min(half_height, volume.radius_xy_mm))
    to_centre = scan.source - centre
    slack = max(0.0, half_height - volume.radius_xy_mm)
    to_centre[:, 2] -= np.clip(to_centre[:, 2], -slack, slack)
    distance = np.linalg.norm(to_centre, axis=1)
    view = int(distance.argmin())
    if distance[view] <= radius:
        raise GeometryError(
            f"the source of view {view} is {distance[view]:.4g} mm from the volume's centre, inside its bounding "
            f"sphere of {radius:.4g} mm. Make the volume smaller or correct source_to_object_mm and the voxel size."
        )


def _sampled(count: int, most: int = SAMPLES) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, most)).round())


def _pixels(forms: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values = points @ forms[:, :3].T + forms[:, 3]
    return values[:, 0] / values[:, 2], values[:, 1] / values[:, 3]


def _axis_distance(middle: tuple[np.ndarray, np.ndarray], rays: np.ndarray, column: float) -> np.ndarray:
    """Distance of one column's middle ray from the z axis, per view."""
    origin = middle[0] + column * rays[:, 1]
    direction = middle[1] + column * rays[:, 4]
    cross = origin[:, 0] * direction[:, 1] - origin[:, 1] * direction[:, 0]
    return np.abs(cross) / np.maximum(np.hypot(direction[:, 0], direction[:, 1]), 1e-12)


def _height(scan: ScanGeometry, radius: float) -> tuple[float, float]:
    """Lowest and highest z at which a ray is still within `radius` of the axis."""
    rays = scan.rays()
    rows, columns = scan.detector_shape
    heights = []
    for row in (-0.5, rows - 0.5):
        origin = rays[:, 0] + (columns - 1) / 2 * rays[:, 1] + row * rays[:, 2]
        direction = rays[:, 3] + (columns - 1) / 2 * rays[:, 4] + row * rays[:, 5]
        flat = np.maximum(np.hypot(direction[:, 0], direction[:, 1]), 1e-12)
        nearest = -(origin[:, :2] * direction[:, :2]).sum(1) / flat**2
        for side in (-radius, radius):
            heights.append(origin[:, 2] + (nearest + side / flat) * direction[:, 2])
    return float(np.min(heights)), float(np.max(heights))
