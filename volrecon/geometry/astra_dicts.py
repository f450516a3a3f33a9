"""To and from ASTRA's geometries, which are plain dictionaries: this file does not import astra.

Both worlds share one frame, (x, y, z) in mm, and one order of arrays: volumes (z, y, x), projections
(v, angle, u). Two-dimensional ASTRA differs in one thing: row 0 of its images lies at the largest y, while
index 0 of our y axis (and of ASTRA's own 3D arrays) lies at the smallest. The dictionaries cannot express it:
whoever uses a 2D dictionary flips the image, `image[::-1]`, on the way in and on the way out. 2D sinograms
are (angle, u) and are not flipped.
"""

import math
from typing import Any

import numpy as np

from volrecon.errors import GeometryError
from volrecon.geometry.scan import ScanGeometry
from volrecon.geometry.trajectories import cone, fan, parallel
from volrecon.geometry.volume import VolumeGeometry

ROW_TOLERANCE = 1e-3
"""Rows by which the rays of one detector row may rise or fall and still count as lying in one slice."""

IN_PLANE = [0, 1, 3, 4, 6, 7]
"""Where the x and y of source, detector centre and u step stand among the twelve numbers of a view."""

SCAN_TYPES = (
    "cone",
    "cone_vec",
    "parallel3d",
    "parallel3d_vec",
    "fanflat",
    "fanflat_vec",
    "parallel",
    "parallel_vec",
)


def volume_to_astra(volume: VolumeGeometry) -> dict[str, Any]:
    """The 3D dictionary of `astra.create_vol_geom`, with the volume's edges in mm as its window."""
    slices, rows, columns = volume.shape
    window = {**_window(volume, 0, "X"), **_window(volume, 1, "Y"), **_window(volume, 2, "Z")}
    return {"option": window, "GridRowCount": rows, "GridColCount": columns, "GridSliceCount": slices}


def volume_slice_to_astra(volume: VolumeGeometry) -> dict[str, Any]:
    """The 2D dictionary of any one slice of the volume.

    The caller flips: row 0 of ASTRA's 2D image is the slice's largest y, so pass `slice[::-1]` (made
    contiguous) and flip what comes back.

    Raises:
        GeometryError: the pixels of a slice are not square.
    """
    _, rows, columns = volume.shape
    _, dy, dx = volume.voxel_zyx_mm
    # ASTRA 2.5.0 refuses pixels wider than high, and silently scales integrals by dy / dx in the other case.
    if not math.isclose(dy, dx, rel_tol=1e-6):
        raise GeometryError(
            f"a 2D ASTRA geometry was asked for, but the pixels of a slice are {dy:g} mm in y and {dx:g} mm "
            f"in x: ASTRA's 2D projectors need square ones. Use the same voxel size in y and x."
        )
    window = {**_window(volume, 0, "X"), **_window(volume, 1, "Y")}
    return {"option": window, "GridRowCount": rows, "GridColCount": columns}


def volume_from_astra(geometry: dict[str, Any], *, slice_mm: float = 1.0) -> VolumeGeometry:
    """The volume of an ASTRA dictionary, 3D or 2D.

    Args:
        geometry: what `astra.create_vol_geom` returns. A missing edge has ASTRA's default, voxels of 1.
        slice_mm: thickness of the single slice, centred on z = 0, that a 2D dictionary becomes. Images that
            belong to a 2D dictionary must be flipped in y.

    Raises:
        GeometryError: a count is missing or no whole number, or the window is empty.
    """
    try:
        flat = "GridSliceCount" not in geometry
        slices, dz, z = (1, slice_mm, 0.0) if flat else _axis(geometry, "GridSliceCount", "Z")
        rows, dy, y = _axis(geometry, "GridRowCount", "Y")
        columns, dx, x = _axis(geometry, "GridColCount", "X")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise GeometryError(
            f"the ASTRA volume geometry cannot be read ({error!r}): {str(geometry)[:200]}. "
            f"Make it with astra.create_vol_geom."
        ) from error
    return VolumeGeometry((slices, rows, columns), (dz, dy, dx), (x, y, z))


def scan_to_astra(scan: ScanGeometry) -> dict[str, Any]:
    """The 3D dictionary of a cone beam (`cone_vec`) or a parallel beam (`parallel3d_vec`), vectors copied.

    Raises:
        GeometryError: the scan is a fan stack, whose rows have a source each: no 3D type of ASTRA has that.
    """
    if scan.beam == "fan":
        raise GeometryError(
            f"a fan stack of {scan.detector_shape[0]} rows has no 3D ASTRA geometry: each row has its own "
            f"source, and a cone has one for all. Take it row by row with scan_row_to_astra."
        )
    rows, columns = scan.detector_shape
    return {
        "type": "cone_vec" if scan.beam == "cone" else "parallel3d_vec",
        "DetectorRowCount": rows,
        "DetectorColCount": columns,
        "Vectors": scan.vectors.copy(),
    }


def scan_row_to_astra(scan: ScanGeometry, row: int) -> dict[str, Any]:
    """The 2D dictionary (`fanflat_vec` or `parallel_vec`) of one detector row whose rays lie in one slice.

    Rows of a fan stack, rows of a parallel beam along the slices, and the mid-plane row of a circular cone
    qualify. The row's height is dropped: the caller takes the slice that lies there and flips it in y (see
    `volume_slice_to_astra`). The sinogram is `projections[row]`, (angle, u).

    Raises:
        GeometryError: there is no such row, or its rays leave the plane z = const.
    """
    line = scan.crop_rows(row, row + 1)
    _check_in_slice(line, row)
    return {
        "type": "parallel_vec" if scan.beam == "parallel" else "fanflat_vec",
        "DetectorCount": scan.detector_shape[1],
        "Vectors": np.ascontiguousarray(line.vectors[:, IN_PLANE]),
    }


def scan_from_astra(geometry: dict[str, Any], *, row_pitch_mm: float = 1.0, trust_angles: bool = False) -> ScanGeometry:
    """The scan of an ASTRA projection dictionary.

    The vectors of a `_vec` type are taken as they are. ASTRA's own `geom_2vec` points parallel rays towards
    the source: the same lines, but `angles` of such a scan are half a turn off. From the types with angles
    rays come out in our direction, away from the source.

    Args:
        geometry: what `astra.create_proj_geom` returns, of a type in `SCAN_TYPES`. The 2D types become one
            row at z = 0, `fanflat` a fan and `parallel` a parallel beam; their images must be flipped in y.
        row_pitch_mm: row height given to a 2D geometry.
        trust_angles: accept angles over more than two turns, which look like degrees.

    Raises:
        GeometryError: another type (by name), a missing entry, angles in degrees, or rays that cannot be.
    """
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in SCAN_TYPES:
        raise GeometryError(
            f"an ASTRA geometry of type {kind!r} cannot be imported; choose one of {', '.join(SCAN_TYPES)}"
        )
    try:
        if kind.endswith("_vec"):
            return _from_vectors(geometry, row_pitch_mm)
        if kind in ("parallel", "parallel3d"):
            return _from_parallel(geometry, row_pitch_mm, trust_angles)
        return _from_circular(geometry, row_pitch_mm, trust_angles)
    except (KeyError, TypeError, ValueError) as error:
        raise GeometryError(
            f"the ASTRA geometry of type {kind!r} cannot be read ({error!r}): {str(geometry)[:200]}. "
            f"Make it with astra.create_proj_geom."
        ) from error


def _check_in_slice(line: ScanGeometry, row: int) -> None:
    """Refuse the one-row scan `line` when a ray of it leaves the slice in which it begins."""
    pixel_v, pixel_u = line.pixel_vu_mm
    columns = line.detector_shape[1]
    rise = line.directions()[:, 2]
    if line.beam == "parallel":
        # A ray direction has no length of its own: judge it over a path as long as the detector is wide.
        rise = rise / np.linalg.norm(line.source, axis=1) * columns * pixel_u
    height = line.detector[:, 2]
    off = np.abs([rise, line.u[:, 2] * columns / 2, height - height[0]]).max(axis=0)
    view = int(off.argmax())
    if off[view] <= ROW_TOLERANCE * pixel_v:
        return
    advice = {
        "cone": "Only a row at the source's height qualifies (among an even number of rows there may be "
        "none); for the whole detector use scan_to_astra.",
        "parallel": "Use scan_to_astra.",
        "fan": "No ASTRA geometry describes such a fan.",
    }[line.beam]
    raise GeometryError(
        f"a 2D ASTRA geometry of row {row} was asked for, but the rays of this {line.beam} beam do not stay "
        f"in one slice: in view {view} they leave z = {height[0]:.6g} mm by {off[view]:.3g} mm. {advice}"
    )


def _from_vectors(geometry: dict[str, Any], row_pitch_mm: float) -> ScanGeometry:
    kind = geometry["type"]
    vectors = np.asarray(geometry["Vectors"], dtype=np.float64)
    if kind in ("cone_vec", "parallel3d_vec"):
        return ScanGeometry("cone" if kind == "cone_vec" else "parallel", _detector(geometry), vectors)
    if vectors.ndim != 2 or vectors.shape[1] != 6:
        raise GeometryError(f"the vectors of a {kind!r} geometry have shape {vectors.shape}; expected (views, 6)")
    raised = np.zeros((len(vectors), 12))
    raised[:, IN_PLANE] = vectors
    raised[:, 11] = row_pitch_mm
    shape = (1, _count(geometry, "DetectorCount"))
    return ScanGeometry("fan" if kind == "fanflat_vec" else "parallel", shape, raised)


def _from_parallel(geometry: dict[str, Any], row_pitch_mm: float, trust_angles: bool) -> ScanGeometry:
    flat = geometry["type"] == "parallel"
    return parallel(
        detector_shape=(1, _count(geometry, "DetectorCount")) if flat else _detector(geometry),
        pixel_mm=(row_pitch_mm, geometry["DetectorWidth"]) if flat else _pixels(geometry),
        angles=geometry["ProjectionAngles"],
        trust_angles=trust_angles,
    )


def _from_circular(geometry: dict[str, Any], row_pitch_mm: float, trust_angles: bool) -> ScanGeometry:
    source_mm = geometry["DistanceOriginSource"]
    detector_mm = float(geometry["DistanceOriginDetector"])
    if not (np.isfinite(detector_mm) and detector_mm >= 0):
        raise GeometryError(
            f"DistanceOriginDetector is {detector_mm} mm; it must be finite and not below 0: the detector "
            f"cannot be between the source and the rotation axis"
        )
    # ASTRA allows a detector on the rotation axis and our constructors do not: build elsewhere, then move it.
    if geometry["type"] == "fanflat":
        scan = fan(
            source_to_object_mm=source_mm,
            source_to_detector_mm=2 * source_mm,
            columns=_count(geometry, "DetectorCount"),
            pixel_mm=geometry["DetectorWidth"],
            row_pitch_mm=row_pitch_mm,
            angles=geometry["ProjectionAngles"],
            trust_angles=trust_angles,
        )
    else:
        scan = cone(
            source_to_object_mm=source_mm,
            source_to_detector_mm=2 * source_mm,
            detector_shape=_detector(geometry),
            pixel_mm=_pixels(geometry),
            angles=geometry["ProjectionAngles"],
            trust_angles=trust_angles,
        )
    vectors = scan.vectors.copy()
    vectors[:, 3:5] = scan.source[:, :2] * (-detector_mm / source_mm)
    return ScanGeometry(scan.beam, scan.detector_shape, vectors)


def _window(volume: VolumeGeometry, axis: int, letter: str) -> dict[str, float]:
    """The two edges along world axis `axis`, (x, y, z), under ASTRA's names."""
    centre, half = volume.centre_xyz_mm[axis], float(volume.size_xyz_mm[axis]) / 2
    return {f"WindowMin{letter}": centre - half, f"WindowMax{letter}": centre + half}


def _axis(geometry: dict[str, Any], count_name: str, letter: str) -> tuple[int, float, float]:
    """Voxel count, voxel size and centre along one axis of an ASTRA volume."""
    count = _count(geometry, count_name)
    option = geometry.get("option", {})
    low = float(option.get(f"WindowMin{letter}", -count / 2))
    high = float(option.get(f"WindowMax{letter}", count / 2))
    return count, (high - low) / max(count, 1), (low + high) / 2


def _detector(geometry: dict[str, Any]) -> tuple[int, int]:
    return _count(geometry, "DetectorRowCount"), _count(geometry, "DetectorColCount")


def _pixels(geometry: dict[str, Any]) -> tuple[float, float]:
    return geometry["DetectorSpacingY"], geometry["DetectorSpacingX"]


def _count(geometry: dict[str, Any], name: str) -> int:
    """A whole number of the dictionary; MATLAB and JSON write it as a float."""
    count = int(geometry[name])
    if count != geometry[name]:
        raise GeometryError(f"{name} is {geometry[name]}; it must be a whole number")
    return count
