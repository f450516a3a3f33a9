"""ASTRA's 2D CPU projector sees the same rays as we do, by closed form; in 3D it sees the same points.

Nothing here projects in 3D: without a GPU ASTRA ends the process there.
"""

import numpy as np
import pytest

from volrecon.geometry import ScanGeometry, VolumeGeometry, cone, fan, parallel
from volrecon.geometry.astra_dicts import (
    scan_from_astra,
    scan_row_to_astra,
    volume_from_astra,
    volume_slice_to_astra,
)

astra = pytest.importorskip("astra")

ANGLES = np.array([0.0, 0.4, 1.3, 2.2, 3.6, 5.0])
VOLUME = VolumeGeometry((5, 20, 28), (0.7, 0.5, 0.5), (1.5, -0.75, 0.35))
CONE = cone(
    source_to_object_mm=60,
    source_to_detector_mm=90,
    detector_shape=(5, 41),
    pixel_mm=(0.9, 0.6),
    angles=ANGLES,
    detector_offset_mm=(0.0, 1.1),
    axis_shift_mm=0.4,
)
FAN = fan(
    source_to_object_mm=60,
    source_to_detector_mm=90,
    columns=41,
    pixel_mm=0.6,
    angles=ANGLES,
    rows=3,
    row_pitch_mm=0.7,
    detector_offset_mm=1.1,
    axis_shift_mm=0.4,
)
PARALLEL = parallel(
    detector_shape=(3, 41),
    pixel_mm=(0.7, 0.45),
    angles=ANGLES,
    detector_offset_mm=(0.2, 0.83),
    axis_shift_mm=-0.3,
)
IN_SLICE = {"fan": (FAN, 2), "parallel": (PARALLEL, 0), "cone mid-plane": (CONE, 2)}
"""Scans with a row that ASTRA's 2D geometries can hold."""

BY_ANGLES = {
    "fanflat": ("fanflat", 0.6, 41, ANGLES, 60.0, 30.0),
    "fanflat, detector on the axis": ("fanflat", 0.4, 41, ANGLES, 60.0, 0.0),
    "parallel": ("parallel", 0.6, 41, ANGLES),
}
"""Arguments of astra.create_proj_geom for the 2D types with angles."""

IN_3D = {
    "cone": ("cone", 0.6, 0.9, 5, 41, ANGLES, 60.0, 30.0),
    "parallel3d": ("parallel3d", 0.6, 0.9, 5, 41, ANGLES),
}
"""Arguments of astra.create_proj_geom for the 3D types with angles."""


def box_integrals(scan: ScanGeometry, row: int, low_xy, high_xy) -> np.ndarray:
    """Closed form of the chords (views, columns), in mm, of one row's rays through a box endless along z."""
    rays = scan.rays()[:, :, :2]
    column = np.arange(scan.detector_shape[1])[:, None]
    origin = rays[:, None, 0] + column * rays[:, None, 1] + row * rays[:, None, 2]
    direction = rays[:, None, 3] + column * rays[:, None, 4] + row * rays[:, None, 5]
    direction = np.where(np.abs(direction) < 1e-12, 1e-12, direction)
    entry, leave = (np.asarray(low_xy) - origin) / direction, (np.asarray(high_xy) - origin) / direction
    inside = np.maximum(entry, leave).min(-1) - np.minimum(entry, leave).max(-1)
    return np.maximum(inside, 0) * np.linalg.norm(direction, axis=-1)


def box_phantom(volume: VolumeGeometry):
    """A slice (y, x) of zeros with one box of ones far from every symmetry, and the box's corners in mm."""
    image = np.zeros(volume.shape[1:], dtype=np.float32)
    rows, columns = slice(2, 7), slice(15, 25)
    image[rows, columns] = 1
    edge = volume.origin_xyz_mm[:2] - volume.voxel_xyz_mm[:2] / 2
    low = edge + volume.voxel_xyz_mm[:2] * (columns.start, rows.start)
    high = edge + volume.voxel_xyz_mm[:2] * (columns.stop, rows.stop)
    return image, low, high


def astra_sinogram(projection: dict, volume: dict, image: np.ndarray) -> np.ndarray:
    """ASTRA's CPU sinogram (angle, u) of an image as ASTRA stores it, row 0 at the largest y."""
    kind = "line_fanflat" if projection["type"].startswith("fanflat") else "line"
    projector = astra.create_projector(kind, projection, volume)
    try:
        out = np.zeros(astra.geom_size(projection), dtype=np.float32)
        astra.projector.direct_FP(projector, np.ascontiguousarray(image), out=out)
    finally:
        astra.projector.delete(projector)
    return out


@pytest.mark.parametrize("name", IN_SLICE)
def test_row_sees_what_astra_sees(name):
    """A wrong hand, a wrong offset or a missing flip would show: the box has no symmetry."""
    scan, row = IN_SLICE[name]
    image, low, high = box_phantom(VOLUME)
    expected = box_integrals(scan, row, low, high)
    geometry, grid = scan_row_to_astra(scan, row), volume_slice_to_astra(VOLUME)
    assert (expected > 0.5).mean() > 0.1
    found = astra_sinogram(geometry, grid, image[::-1])
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4)
    unflipped = astra_sinogram(geometry, grid, image)
    assert np.abs(unflipped - expected).max() > 1


@pytest.mark.parametrize("name", BY_ANGLES)
def test_imported_2d_scan_sees_what_astra_sees(name):
    geometry = astra.create_proj_geom(*BY_ANGLES[name])
    image, low, high = box_phantom(VOLUME)
    expected = box_integrals(scan_from_astra(geometry), 0, low, high)
    found = astra_sinogram(geometry, volume_slice_to_astra(VOLUME), image[::-1])
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4)


def test_imported_2d_volume_is_where_astra_puts_it():
    grid = astra.create_vol_geom(20, 28, -5.0, 9.0, -8.0, 2.0)
    volume = volume_from_astra(grid)
    image, low, high = box_phantom(volume)
    expected = box_integrals(FAN, 0, low, high)
    found = astra_sinogram(scan_row_to_astra(FAN, 0), grid, image[::-1])
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("name", IN_3D)
def test_points_fall_on_the_pixels_that_astra_says(name):
    experimental = pytest.importorskip("astra.experimental")
    if not hasattr(experimental, "projectPoint"):
        pytest.skip("this ASTRA has no projectPoint")
    geometry = astra.geom_2vec(astra.create_proj_geom(*IN_3D[name]))
    geometry = astra.functions.geom_postalignment(geometry, (1.5, -0.7))
    forms = scan_from_astra(geometry).pixel_forms() @ np.array([3.0, -2.0, 1.2, 1.0])
    for view, (u, v, depth_u, depth_v) in enumerate(forms):
        # ASTRA rounds to float32 on the way.
        np.testing.assert_allclose(
            (u / depth_u, v / depth_v),
            experimental.projectPoint(geometry, 3.0, -2.0, 1.2, view),
            rtol=1e-5,
        )
