"""RTK's geometry XML (RTKThreeDCircularGeometry, version 3), read and written.

Nine numbers a view, mm and degrees (IEC 61217): a rotation R = Rz(-in plane) Rx(-out of plane) Ry(-gantry), whose rows
are the detector's u, v and normal; the source at R'(SourceOffsetX, SourceOffsetY, SourceToIsocenterDistance); the
detector's point (0, 0) at R'(ProjectionOffsetX, ProjectionOffsetY, SourceToIsocenterDistance -
SourceToDetectorDistance). A SourceToDetectorDistance of 0 is a parallel beam. Source: RTK's documentation/docs/
Geometry.md. RTK's axis y is our z, and its z our -y: then both have the same gantry angles. The detector's pixels
stand in the projections' file: their ITK coordinates (x, y) are positions along u and v.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from volrecon.errors import ConfigError, DataError, GeometryError
from volrecon.formats.base import Frame, GeometryFormat, StatedScan
from volrecon.formats.files import reading, replacing
from volrecon.formats.rtk_xml import PARAMETERS, View, parsed, xml_lines
from volrecon.geometry import ScanGeometry, from_vectors
from volrecon.geometry.scan import Beam

MATRIX_ABSOLUTE = 1e-3
"""RTK's own tolerance between a stored matrix and the parameters; for large entries 1e-6 of them is allowed too."""

SQUARE = 1e-6
"""How far, relatively, pixels may be from square corners and from equal in all views; RTK's own bound for corners."""

PARALLEL_SOURCE_MM = 1000.0
"""Where RTK's plane of parallel rays starts; its projectors cut rays off there, ours do not know such a place."""


class Pose(NamedTuple):
    """The nine parameters as arrays over the views: `rotation` (views, 3, 3), the rest (views,) in mm."""

    rotation: np.ndarray
    source_x: np.ndarray
    source_y: np.ndarray
    source_z: np.ndarray
    detector_x: np.ndarray
    detector_y: np.ndarray
    distance: np.ndarray


def read(path: Path, frame: Frame | None) -> StatedScan:
    """The scan of an RTK geometry file.

    Raises:
        ConfigError: `frame` does not give the pixels with the place of the first one.
        DataError: another version, a curved detector, a damaged file, or a Matrix that contradicts the parameters.
    """
    if frame is None or frame.pixels is None or frame.pixels.first_vu_mm is None:
        raise ConfigError(
            f"{path}: RTK's geometry does not state the detector; it needs projections whose file has a pixel size "
            f"and an origin, such as .mha or .nii"
        )
    with reading(path):
        content = parsed(path, frame.views)
        if len(content.views) != frame.views:
            raise DataError(f"states {len(content.views)} views, the projections' file has {frame.views}")
        parameters = np.array([view.parameters for view in content.views])
        _check_matrices(content.views, parameters)
        beam: Beam = "parallel" if (parameters[:, PARAMETERS.index("SourceToDetectorDistance")] == 0).all() else "cone"
        scan = _scan(beam, _pose(parameters), frame.detector_shape, frame.pixels.size_vu_mm, frame.pixels.first_vu_mm)
        angles = np.degrees(scan.angles[[0, -1]])
        notes = (
            f"RTK geometry version {content.version}, {beam} beam of {scan.views} views, mm and degrees; its axes "
            f"(x, -z, y) taken as ours (x, y, z), the gantry angle as ours: source from {angles[0]:.6g} to "
            f"{angles[1]:.6g} deg",
            f"detector {frame.detector_shape} pixels of {frame.pixels.size_vu_mm} mm (v, u), the first at "
            f"{frame.pixels.first_vu_mm} mm, from the projections' file; the XML's offsets move it",
        )
        ignored = (f"not used: {', '.join(sorted(content.ignored))}",) if content.ignored else ()
        return StatedScan(scan, None, notes + ignored)


def write(path: Path, scan: ScanGeometry) -> None:
    """The scan as RTK itself writes it, for projections whose ITK origin puts (0, 0) in the detector's middle.

    Where a detector lies along parallel rays is not kept: it does not matter.

    Raises:
        GeometryError: RTK cannot hold the scan: a stack of fans, pixels that vary or are not right-angled, parallel
            rays not perpendicular to the detector.
    """
    parameters = _parameters(path, scan)
    views = [
        View(tuple(row), matrix)
        for row, matrix in zip(parameters.tolist(), _matrices(_pose(parameters)).tolist(), strict=True)
    ]
    with replacing(path) as partial:
        partial.write_text("\n".join(xml_lines(views)) + "\n", encoding="ascii")


def _pose(parameters: np.ndarray) -> Pose:
    sid, sdd, gantry, out_of_plane, in_plane, *offsets = parameters.T
    g, o, p = (-np.radians(angle) for angle in (gantry, out_of_plane, in_plane))
    zero, one = np.zeros_like(g), np.ones_like(g)

    def matrices(*entries: np.ndarray) -> np.ndarray:
        return np.stack(entries, axis=1).reshape(-1, 3, 3)

    about_y = matrices(np.cos(g), zero, np.sin(g), zero, one, zero, -np.sin(g), zero, np.cos(g))
    about_x = matrices(one, zero, zero, zero, np.cos(o), -np.sin(o), zero, np.sin(o), np.cos(o))
    about_z = matrices(np.cos(p), -np.sin(p), zero, np.sin(p), np.cos(p), zero, zero, zero, one)
    source_x, source_y, detector_x, detector_y = offsets
    return Pose(about_z @ about_x @ about_y, source_x, source_y, sid, detector_x, detector_y, sdd)


def _matrices(pose: Pose) -> np.ndarray:
    """RTK's projection matrices (views, 3, 4): isocentre coordinates to detector coordinates, homogeneous."""
    u, v, normal = (pose.rotation[:, k] for k in range(3))
    if not pose.distance.any():
        last = np.zeros_like(u)
        linear, constant = (u, v, last), (-pose.detector_x, -pose.detector_y, np.ones(len(u)))
    else:
        shift_x, shift_y = pose.source_x - pose.detector_x, pose.source_y - pose.detector_y
        distance = pose.distance
        linear = (
            shift_x[:, None] * normal - distance[:, None] * u,
            shift_y[:, None] * normal - distance[:, None] * v,
            normal,
        )
        constant = (
            distance * pose.source_x - shift_x * pose.source_z,
            distance * pose.source_y - shift_y * pose.source_z,
            -pose.source_z,
        )
    return np.concatenate([np.stack(linear, axis=1), np.stack(constant, axis=1)[..., None]], axis=2)


def _check_matrices(views: list[View], parameters: np.ndarray) -> None:
    distance = parameters[:, PARAMETERS.index("SourceToDetectorDistance")]
    if distance.any() and not distance.all():
        raise DataError(f"view {int(np.argmin(np.abs(distance)))} is parallel (distance 0) among divergent ones")
    stored, expected = np.array([view.matrix for view in views]), _matrices(_pose(parameters))
    tolerance = np.maximum(MATRIX_ABSOLUTE, 1e-6 * np.abs(expected).max(axis=2, keepdims=True))
    wrong = np.argwhere((np.abs(stored - expected) > tolerance).any(axis=(1, 2)))
    if len(wrong):
        view = int(wrong[0, 0])
        raise DataError(
            f"the Matrix of view {view} does not agree with its parameters: it is {stored[view].tolist()}, the "
            f"parameters give {expected[view].tolist()} ({len(wrong)} such views). One of them was edited by hand"
        )


def _scan(
    beam: Beam, pose: Pose, shape: tuple[int, int], size_vu: tuple[float, float], first_vu: tuple[float, float]
) -> ScanGeometry:
    u, v, normal = (pose.rotation[:, k] for k in range(3))
    (rows, columns), (size_v, size_u), (first_v, first_u) = shape, size_vu, first_vu
    x = pose.detector_x + first_u + (columns - 1) / 2 * size_u
    y = pose.detector_y + first_v + (rows - 1) / 2 * size_v
    centre = x[:, None] * u + y[:, None] * v
    if beam == "parallel":
        source = -normal
    else:
        source = pose.source_x[:, None] * u + pose.source_y[:, None] * v + pose.source_z[:, None] * normal
        centre = centre + (pose.source_z - pose.distance)[:, None] * normal
    parts = (source, centre, size_u * u, size_v * v)
    return from_vectors(beam, shape, np.concatenate([_ours(part) for part in parts], axis=1))


def _parameters(path: Path, scan: ScanGeometry) -> np.ndarray:
    """The nine parameters of every view, (views, 9), in the order of PARAMETERS."""
    u, v, normal = _detector_axes(path, scan)
    source, centre = _rtk(scan.source), _rtk(scan.detector)
    if scan.beam == "parallel":
        rows, columns = scan.detector_shape
        panel = float(np.hypot(rows * scan.pixel_vu_mm[0], columns * scan.pixel_vu_mm[1]))
        source = max(PARALLEL_SOURCE_MM, 2 * panel) * normal

    def along(vectors: np.ndarray, axis: np.ndarray) -> np.ndarray:
        return (vectors * axis).sum(1)

    distance = np.zeros(scan.views) if scan.beam == "parallel" else along(source - centre, normal)
    lengths = [along(source, normal), distance, along(source, u), along(source, v), along(centre, u), along(centre, v)]
    # To 1e-11 mm, so that what differs by rounding alone is the same in all views, and stands once.
    sid, sdd, source_x, source_y, x, y = np.round(lengths, 11) + 0.0
    return np.stack([sid, sdd, *_euler_degrees(u, v, normal), source_x, source_y, x, y], axis=1)


def _detector_axes(path: Path, scan: ScanGeometry) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors u, v and their cross product, RTK's axes, after checking that RTK can hold the scan."""
    if scan.beam == "fan":
        raise GeometryError(f"{path}: RTK has no stack of fans; write it as geometry.toml")
    sizes = np.linalg.norm(np.stack([scan.v, scan.u]), axis=2)
    u, v = scan.u / sizes[1, :, None], scan.v / sizes[0, :, None]
    uneven = float((np.ptp(sizes, axis=1) / sizes[:, 0]).max())
    lean = float(np.abs((u * v).sum(1)).max())
    if max(uneven, lean) > SQUARE:
        raise GeometryError(
            f"{path}: RTK has one pixel size and right-angled pixels; here sizes vary by {uneven:.3g} of them and "
            f"u and v are up to {np.degrees(np.arcsin(lean)):.3g} deg from square. Write it as geometry.toml"
        )
    normal = np.cross(u, v)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    if scan.beam == "parallel":
        ray = scan.source / np.linalg.norm(scan.source, axis=1, keepdims=True)
        if (off := float(np.linalg.norm(ray + normal, axis=1).max())) > SQUARE:
            raise GeometryError(
                f"{path}: RTK's parallel rays meet the detector's front at a right angle; here they are up to "
                f"{np.degrees(2 * np.arcsin(min(off / 2, 1))):.3g} deg off. Write it as geometry.toml"
            )
    return _rtk(u), _rtk(np.cross(normal, u)), _rtk(normal)


def _euler_degrees(u: np.ndarray, v: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Gantry, out-of-plane and in-plane angles (3, views) of the rotation with rows u, v, normal."""
    level = np.hypot(normal[:, 0], normal[:, 2])
    out_of_plane = np.arctan2(normal[:, 1], level)
    # Seen along the axis the gantry and the in-plane angle turn the same way: all of it is given to the latter.
    gantry = np.where(level > 1e-9, np.arctan2(-normal[:, 0], normal[:, 2]), 0.0)
    level_u = np.stack([np.cos(gantry), np.zeros_like(gantry), np.sin(gantry)], axis=1)
    in_plane = np.arctan2((v * level_u).sum(1), (u * level_u).sum(1))
    angles = np.round(-np.degrees([gantry, out_of_plane, in_plane]), 12) + 0.0
    angles[0] = np.mod(angles[0], 360)
    return angles


def _ours(rtk: np.ndarray) -> np.ndarray:
    return np.stack([rtk[:, 0], -rtk[:, 2], rtk[:, 1]], axis=1)


def _rtk(ours: np.ndarray) -> np.ndarray:
    return np.stack([ours[:, 0], ours[:, 2], -ours[:, 1]], axis=1)


FORMAT = GeometryFormat("rtk", (".xml",), read, write)
