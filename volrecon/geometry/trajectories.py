"""Constructors of scans that people have: circular cone, helix, fan, parallel, or vectors from a file."""

import math
import warnings
from collections.abc import Sequence

import numpy as np

from volrecon.errors import GeometryError, GeometryWarning
from volrecon.geometry.scan import Beam, ScanGeometry
from volrecon.geometry.volume import checked_size

Pair = tuple[float, float]


def cone(
    *,
    source_to_object_mm: float,
    source_to_detector_mm: float,
    detector_shape: tuple[int, int],
    pixel_mm: float | Pair,
    angles: Sequence[float] | np.ndarray,
    detector_offset_mm: Pair = (0.0, 0.0),
    axis_shift_mm: float = 0.0,
    tilt: tuple[float, float, float] = (0.0, 0.0, 0.0),
    trust_angles: bool = False,
) -> ScanGeometry:
    """A cone beam whose source moves on a circle about z, flat detector.

    Args:
        source_to_object_mm: source to rotation axis.
        source_to_detector_mm: source to detector plane, larger than `source_to_object_mm`.
        detector_shape: pixels (v, u).
        pixel_mm: pixel size at the detector, one number or (v, u).
        angles: gantry angles in radians; source at (0, -source_to_object, 0) at 0, counter-clockwise.
        detector_offset_mm: shift of the detector in its own plane, (v, u).
        axis_shift_mm: centre-of-rotation shift: where the rotation axis lies along u, measured at the axis,
            from the ray through the middle of the undisplaced detector.
        tilt: rotations of the detector in radians about (the central ray, u, v), applied in that order.
        trust_angles: take the angles as they are, even if they look like degrees.

    Raises:
        GeometryError: rows G1, G3 and G4 of the fault matrix.
    """
    _check_distances(source_to_object_mm, source_to_detector_mm)
    angles = _checked_angles(angles, trust_angles)
    return _circular(
        "cone",
        angles,
        source_to_object_mm,
        source_to_detector_mm,
        detector_shape,
        pixel_mm,
        detector_offset_mm,
        axis_shift_mm,
        tilt,
    )


def fan(
    *,
    source_to_object_mm: float,
    source_to_detector_mm: float,
    columns: int,
    pixel_mm: float,
    angles: Sequence[float] | np.ndarray,
    rows: int = 1,
    row_pitch_mm: float = 1.0,
    detector_offset_mm: float = 0.0,
    axis_shift_mm: float = 0.0,
    trust_angles: bool = False,
) -> ScanGeometry:
    """A stack of flat-detector fan beams: row v sees only its own slice, `row_pitch_mm` above row v - 1.

    Angles, distances and `axis_shift_mm` as in `cone`; `detector_offset_mm` is along u.
    """
    _check_distances(source_to_object_mm, source_to_detector_mm)
    angles = _checked_angles(angles, trust_angles)
    return _circular(
        "fan",
        angles,
        source_to_object_mm,
        source_to_detector_mm,
        (rows, columns),
        (row_pitch_mm, pixel_mm),
        (0.0, detector_offset_mm),
        axis_shift_mm,
        (0.0, 0.0, 0.0),
    )


def parallel(
    *,
    detector_shape: tuple[int, int],
    pixel_mm: float | Pair,
    angles: Sequence[float] | np.ndarray,
    detector_offset_mm: Pair = (0.0, 0.0),
    axis_shift_mm: float = 0.0,
    elevation: float = 0.0,
    trust_angles: bool = False,
) -> ScanGeometry:
    """A parallel beam; with `elevation` 0 a stack of 2D slices, else rays inclined to the slices (laminography).

    Args:
        elevation: angle of the rays against the slices in radians, positive upwards; the detector stays
            perpendicular to the rays.
        axis_shift_mm: where the rotation axis lies along u from the detector's middle before its offset.
    """
    angles = _checked_angles(angles, trust_angles)
    if not abs(elevation) < math.pi / 2 - 1e-3:
        raise GeometryError(f"elevation is {elevation:g} rad; it must be well inside (-pi/2, pi/2)")
    pixel_v, pixel_u = _pixels(pixel_mm)
    radial, tangent = _frame(angles)
    up = np.broadcast_to([0.0, 0.0, 1.0], radial.shape)
    ray = -radial * math.cos(elevation) + up * math.sin(elevation)
    v = up * math.cos(elevation) + radial * math.sin(elevation)
    offset_v, offset_u = _finite_pair("detector offset", detector_offset_mm)
    centre = offset_v * v + (offset_u - _finite("axis shift", axis_shift_mm)) * tangent
    vectors = np.concatenate([ray, centre, pixel_u * tangent, pixel_v * v], axis=1)
    return ScanGeometry("parallel", detector_shape, vectors)


def helical(
    *,
    source_to_object_mm: float,
    source_to_detector_mm: float,
    detector_shape: tuple[int, int],
    pixel_mm: float | Pair,
    angles: Sequence[float] | np.ndarray,
    pitch_mm: float,
    detector_offset_mm: Pair = (0.0, 0.0),
) -> ScanGeometry:
    """A cone beam on a helix: source and detector rise by `pitch_mm` a turn, at z = 0 half-way through the angles.

    Angles are radians and may run over many turns.
    """
    _check_distances(source_to_object_mm, source_to_detector_mm)
    pitch_mm = _finite("pitch", pitch_mm)
    angles = _checked_angles(angles, trust=True)
    scan = _circular(
        "cone",
        angles,
        source_to_object_mm,
        source_to_detector_mm,
        detector_shape,
        pixel_mm,
        detector_offset_mm,
        0.0,
        (0.0, 0.0, 0.0),
    )
    rise = pitch_mm * (angles - (angles[0] + angles[-1]) / 2) / (2 * math.pi)
    vectors = scan.vectors.copy()
    vectors[:, 2] += rise
    vectors[:, 5] += rise
    return ScanGeometry("cone", scan.detector_shape, vectors)


def from_vectors(beam: Beam, detector_shape: tuple[int, int], vectors: np.ndarray) -> ScanGeometry:
    """A scan from twelve numbers a view, (x, y, z) in mm, in the order of ASTRA's `cone_vec` and `parallel3d_vec`."""
    return ScanGeometry(beam, detector_shape, vectors)


def _circular(
    beam: Beam,
    angles: np.ndarray,
    source_to_object_mm: float,
    source_to_detector_mm: float,
    detector_shape: tuple[int, int],
    pixel_mm: float | Pair,
    detector_offset_mm: Pair,
    axis_shift_mm: float,
    tilt: tuple[float, float, float],
) -> ScanGeometry:
    pixel_v, pixel_u = _pixels(pixel_mm)
    offset_v, offset_u = _finite_pair("detector offset", detector_offset_mm)
    radial, tangent = _frame(angles)
    up = np.broadcast_to([0.0, 0.0, 1.0], radial.shape)
    # The axis is the world's origin: a shifted axis moves source and detector the other way.
    shift = -_finite("axis shift", axis_shift_mm) * tangent
    source = source_to_object_mm * radial + shift
    centre = (source_to_object_mm - source_to_detector_mm) * radial + shift + offset_u * tangent + offset_v * up
    u, v = _tilted(tangent, up, -radial, tilt)
    return ScanGeometry(beam, detector_shape, np.concatenate([source, centre, pixel_u * u, pixel_v * v], axis=1))


def _frame(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors from the axis towards the source, and along the detector's columns."""
    s, c, zero = np.sin(angles), np.cos(angles), np.zeros_like(angles)
    return np.stack([s, -c, zero], axis=1), np.stack([c, s, zero], axis=1)


def _tilted(
    u: np.ndarray, v: np.ndarray, ray: np.ndarray, tilt: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    roll, pitch, yaw = (_finite("tilt", t) for t in tilt)
    u, v = math.cos(roll) * u + math.sin(roll) * v, math.cos(roll) * v - math.sin(roll) * u
    v = math.cos(pitch) * v + math.sin(pitch) * ray
    normal = np.cross(u, v)
    u = math.cos(yaw) * u + math.sin(yaw) * normal
    return u, v


def _check_distances(source_to_object_mm: float, source_to_detector_mm: float) -> None:
    named = {"source_to_object_mm": source_to_object_mm, "source_to_detector_mm": source_to_detector_mm}
    for name, value in named.items():
        if not (isinstance(value, int | float | np.floating | np.integer) and math.isfinite(value) and value > 0):
            raise GeometryError(f"{name} is {value} mm; it must be a finite length above 0")
    if source_to_detector_mm <= source_to_object_mm:
        raise GeometryError(
            f"source_to_detector_mm ({source_to_detector_mm:g} mm) must be larger than "
            f"source_to_object_mm ({source_to_object_mm:g} mm): the detector lies behind the object. "
            f"If you have the distance object to detector, add it to source_to_object_mm."
        )


def _checked_angles(angles: Sequence[float] | np.ndarray, trust: bool) -> np.ndarray:
    angles = np.asarray(angles, dtype=np.float64)
    if angles.ndim != 1 or angles.size == 0:
        raise GeometryError(f"angles have shape {angles.shape}; give a list of at least one")
    if not np.isfinite(angles).all():
        raise GeometryError(f"angle {int(np.argmin(np.isfinite(angles)))} of {angles.size} is not finite")
    extent = float(np.ptp(angles))
    if extent > 4 * math.pi + 1e-6 and not trust:
        raise GeometryError(
            f"the angles run over {extent:g} radians, {extent / (2 * math.pi):.1f} turns: they look like degrees. "
            f"Convert them (numpy.deg2rad), or pass trust_angles=True if the gantry really turns that far."
        )
    if np.unique(np.round(np.mod(angles, 2 * math.pi), 9)).size < angles.size and not trust:
        warnings.warn(
            f"{angles.size - np.unique(np.round(np.mod(angles, 2 * math.pi), 9)).size} of {angles.size} angles "
            f"repeat another one (modulo a turn)",
            GeometryWarning,
            stacklevel=3,
        )
    return angles


def _pixels(pixel_mm: float | Pair) -> Pair:
    pair = (pixel_mm, pixel_mm) if isinstance(pixel_mm, int | float | np.floating) else tuple(pixel_mm)
    if len(pair) != 2:
        raise GeometryError(f"pixel size {pixel_mm} needs one number or (v, u)")
    return checked_size("detector pixel in v", pair[0]), checked_size("detector pixel in u", pair[1])


def _finite(name: str, value: float) -> float:
    value = float(value)
    if not math.isfinite(value):
        raise GeometryError(f"{name} is {value}; it must be finite")
    return value


def _finite_pair(name: str, pair: Pair) -> Pair:
    if len(pair) != 2:
        raise GeometryError(f"{name} is {pair}; give (v, u)")
    return _finite(name, pair[0]), _finite(name, pair[1])
