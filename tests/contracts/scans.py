"""Scans and grids that every projector is held against."""

import numpy as np

from volrecon.geometry import VolumeGeometry, cone, fan, from_vectors, helical, parallel

ANGLES = np.linspace(0, 2 * np.pi, 12, endpoint=False)
CONE = {"source_to_object_mm": 60.0, "source_to_detector_mm": 90.0, "detector_shape": (18, 26), "pixel_mm": 1.5}
CUBE = VolumeGeometry((14, 16, 18), (1.0, 1.0, 1.0))


def tilted_vectors():
    """Views with no symmetry: rays that march along x, along y and along z."""
    rng = np.random.Generator(np.random.Philox(3))
    vectors = cone(**CONE, angles=ANGLES, tilt=(0.2, 0.1, -0.1)).vectors.copy()
    vectors[:, :6] += rng.normal(scale=2.0, size=(12, 6))
    vectors[3] = [2, 3, 60, 1, 0, -40, 1.5, 0.1, 0, 0, 1.5, 0.1]  # from above
    return vectors


SCANS = {
    "cone": (CUBE, cone(**CONE, angles=ANGLES)),
    "cone, offset and tilted": (
        CUBE,
        cone(**CONE, angles=ANGLES, detector_offset_mm=(1.0, 4.0), axis_shift_mm=0.7, tilt=(0.05, 0.02, -0.03)),
    ),
    "cone, thick slices": (VolumeGeometry((6, 16, 18), (2.5, 1.0, 0.9)), cone(**CONE, angles=ANGLES)),
    "cone, thin slices": (VolumeGeometry((20, 12, 12), (0.25, 1.0, 1.0)), cone(**CONE, angles=ANGLES)),
    "cone, one slice": (VolumeGeometry((1, 16, 18), (1.0, 1.0, 1.0)), cone(**CONE, angles=ANGLES)),
    "cone, one view": (CUBE, cone(**CONE, angles=[0.3])),
    "cone, short scan": (CUBE, cone(**CONE, angles=np.linspace(0, 3.6, 9))),
    "cone, volume off centre": (
        VolumeGeometry((9, 16, 18), (1.0, 1.0, 1.0), (3.0, -2.0, 4.0)),
        cone(**CONE, angles=ANGLES),
    ),
    "helix": (CUBE, helical(**CONE, angles=np.linspace(0, 6 * np.pi, 20), pitch_mm=6.0)),
    "fan stack": (
        CUBE,
        fan(
            source_to_object_mm=60.0,
            source_to_detector_mm=90.0,
            rows=14,
            columns=30,
            pixel_mm=1.5,
            row_pitch_mm=1.0,
            angles=ANGLES,
            axis_shift_mm=0.4,
        ),
    ),
    "fan, one slice": (
        VolumeGeometry((1, 16, 18), (2.0, 1.0, 1.0)),
        fan(source_to_object_mm=60.0, source_to_detector_mm=90.0, columns=30, pixel_mm=1.5, angles=ANGLES),
    ),
    "parallel stack": (CUBE, parallel(detector_shape=(14, 26), pixel_mm=1.0, angles=ANGLES[:6], axis_shift_mm=-0.6)),
    "parallel, inclined": (CUBE, parallel(detector_shape=(20, 26), pixel_mm=1.0, angles=ANGLES, elevation=0.5)),
    "vectors": (CUBE, from_vectors("cone", (18, 26), tilted_vectors())),
}
