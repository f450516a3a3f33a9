"""DICOM image series: a folder of axial slices, or one multi-frame file. Projections (DICOM-CT-PD): dicom_ct_pd.py.

DICOM's patient is LPS: x grows to the patient's left, y to the back, z to the head. Ours is (right, front, head), as
for NIfTI: a volume turns to (superior, anterior, right) = our (z, y, x) and keeps its place. Slices are sorted by where
they lie, never by file name or InstanceNumber.
"""

from pathlib import Path

import numpy as np

from volrecon.errors import DataError
from volrecon.formats.agreement import agreed_quantity, agreed_voxel
from volrecon.formats.base import Format, Hints, Quantity, SlicedArray, VolumeData
from volrecon.formats.dicom_ct_pd import read_projections
from volrecon.formats.dicom_export import write_volume
from volrecon.formats.dicom_files import SUFFIXES, series_files
from volrecon.formats.dicom_slices import Slice, slices_of
from volrecon.formats.files import reading
from volrecon.formats.mha import LPS_TO_OURS
from volrecon.geometry import VolumeGeometry

MOST_FILES = 20_000
AIR = {"hu": -1000.0, "per_mm": 0.0}

LARGEST_COSINE_ERROR = 1e-4
"""By how much direction cosines may differ from 0 and 1, and from slice to slice: 0.006 degrees."""

LARGEST_UNEVENNESS = 1e-3
"""Of the spacing: how far a slice may lie from its place on an even grid."""

ROUNDING_MM = 0.002
"""Positions are decimal text, often of three digits: unevenness below this is no statement."""

LARGEST_DRIFT = 0.1
"""Of a pixel: how far a slice may lie beside the line through the others."""


def read_volume(path: Path, hints: Hints) -> VolumeData:
    """A series of axial slices, or of one: Hounsfield units where the files say so, else by the hint `quantity`.

    `hints.key` is the UID or the description of the series, where a folder holds several.

    Raises:
        DataError: slices missing, doubled, unevenly spaced, oblique or sheared (gantry tilt), or unlike each other.
    """
    with reading(path):
        files, said = series_files(path, hints.key, MOST_FILES)
        slices = [one for file in files for one in slices_of(file)]
        _check_alike(slices)
        slices, depth = _in_order(slices)
        geometry = _grid(slices, depth, hints)
        stated: Quantity | None = "hu" if slices[0].is_hu else None
        quantity = agreed_quantity(stated, hints.quantity)

        def read(start: int, stop: int) -> np.ndarray:
            values = np.empty((stop - start, *geometry.shape[1:]), np.float32)
            for k, one in enumerate(slices[start:stop]):
                values[k] = one.values(AIR[quantity])
            return values

        array = SlicedArray(path, geometry.shape, np.dtype(np.float32), read)
        return VolumeData(array, geometry, quantity, _notes(said, slices, geometry, quantity))


def _check_alike(slices: list[Slice]) -> None:
    first = slices[0]
    for one in slices[1:]:
        differing = [
            name
            for name, a, b, tolerance in (
                ("Rows and Columns", one.pixels.shape, first.pixels.shape, 0),
                ("PixelSpacing", one.spacing, first.spacing, 1e-4 * min(first.spacing)),
                ("row direction", one.along_row, first.along_row, LARGEST_COSINE_ERROR),
                ("column direction", one.along_column, first.along_column, LARGEST_COSINE_ERROR),
                ("unit (RescaleType)", one.is_hu, first.is_hu, 0),
            )
            if not np.allclose(a, b, rtol=0, atol=tolerance)
        ]
        if differing:
            raise DataError(
                f"{one.pixels.path.name} differs from {first.pixels.path.name} in {', '.join(differing)}: they are not "
                f"slices of one volume"
            )


def _in_order(slices: list[Slice]) -> tuple[list[Slice], float | None]:
    """The slices from feet to head, and the distance between two, None for a single one."""
    first = slices[0]
    normal = np.cross(first.along_row, first.along_column)
    normal *= np.copysign(1.0, normal[np.abs(normal).argmax()])
    slices = sorted(slices, key=lambda one: float(one.position @ normal))
    positions = np.array([one.position for one in slices])
    heights = positions @ normal
    depth = None
    if len(slices) > 1:
        depth = float(heights[-1] - heights[0]) / (len(slices) - 1)
        _check_even(slices, heights)
        _check_straight(first, positions - positions[0] - np.outer(heights - heights[0], normal), heights)
    _check_axial(first)
    return slices, depth


def _check_even(slices: list[Slice], heights: np.ndarray) -> None:
    steps = np.diff(heights)
    usual = float(np.median(steps))
    named = [f"{one.pixels.path.name} at {height:.4f} mm" for one, height in zip(slices, heights, strict=True)]
    doubled = np.flatnonzero(steps <= max(LARGEST_UNEVENNESS * usual, 1e-6))
    if len(doubled):
        k = int(doubled[0])
        raise DataError(
            f"{len(doubled)} slices lie where another one lies, the first {named[k + 1]} and {named[k]}: several "
            f"volumes (phases, echoes) in one series? Keep the files of one"
        )
    even = np.linspace(heights[0], heights[-1], len(heights))
    if np.abs(heights - even).max() <= max(LARGEST_UNEVENNESS * usual, ROUNDING_MM):
        return
    k = int(np.abs(steps - usual).argmax())
    missing = steps[k] / usual - 1
    why = f": {missing:.0f} missing" if missing > 0.5 and abs(missing - round(missing)) < 0.05 else ""
    raise DataError(
        f"its slices are unevenly spaced: mostly {usual:.4f} mm, but {steps[k]:.4f} mm between {named[k]} and "
        f"{named[k + 1]}{why}. Complete the series, or resample it to an even spacing"
    )


def _check_straight(first: Slice, beside: np.ndarray, heights: np.ndarray) -> None:
    drift = np.linalg.norm(beside, axis=1)
    if drift.max() <= LARGEST_DRIFT * min(first.spacing):
        return
    tilt = np.degrees(np.arctan2(drift[-1], heights[-1] - heights[0]))
    raise DataError(
        f"its slices are sheared: from the first to the last they shift by {drift[-1]:.3f} mm beside the normal of "
        f"their plane, {tilt:.2f} degrees (gantry tilt), at most {drift.max():.3f} mm. Resample it to a straight grid"
    )


def _check_axial(one: Slice) -> None:
    directions = np.stack([one.along_row, one.along_column])
    error = np.abs(np.abs(directions) - np.rint(np.abs(directions))).max()
    if error <= LARGEST_COSINE_ERROR and np.abs(directions[:, 2]).max() <= LARGEST_COSINE_ERROR:
        return
    tilt = np.degrees(np.arccos(np.clip(np.abs(directions).max(axis=1), -1, 1))).max()
    raise DataError(
        f"its slices are not axial: rows run along {one.along_row.tolist()}, columns along {one.along_column.tolist()} "
        f"(left, back, head), {tilt:.2f} degrees off the axes. Resample it to axial slices first"
    )


def _grid(slices: list[Slice], depth: float | None, hints: Hints) -> VolumeGeometry:
    first, last = slices[0], slices[-1]
    (rows, columns), (between_rows, between_columns) = first.pixels.shape, first.spacing
    across = (columns - 1) / 2 * between_columns * first.along_row + (rows - 1) / 2 * between_rows * first.along_column
    x, y, z = (float(c) for c in LPS_TO_OURS * ((first.position + last.position) / 2 + across))
    shape, spacing = (rows, columns), (between_rows, between_columns)
    if abs(first.along_row[1]) > 0.5:
        shape, spacing = shape[::-1], spacing[::-1]
    depth = first.thickness if depth is None else depth
    voxel = agreed_voxel(None if depth is None else (depth, *spacing), hints.voxel_zyx_mm)
    return VolumeGeometry((len(slices), *shape), voxel, (x, y, z))


def _notes(said: str, slices: list[Slice], geometry: VolumeGeometry, quantity: Quantity) -> tuple[str, ...]:
    first = slices[0]
    row, column = _letter(first.along_row), _letter(first.along_column)
    depth = "the distance of the slices" if len(slices) > 1 else "a single slice, its thickness as stated"
    notes = [
        f"{said}, {len(slices)} slices sorted by ImagePositionPatient",
        f"rows run to {row}, columns to {column}; turned to axes (z, y, x) = (superior, anterior, right)",
        f"voxel {geometry.voxel_zyx_mm} mm (z, y, x), centre {geometry.centre_xyz_mm} mm (x, y, z); z is {depth}",
        f"quantity {quantity!r}, RescaleSlope and RescaleIntercept applied slice by slice",
    ]
    paddings = {one.padding for one in slices if one.padding is not None}
    if paddings:
        notes.append(
            f"stored values {sorted(paddings)} mark pixels outside the picture and read as air, {AIR[quantity]:g}"
        )
    if first.of_images not in (None, len(slices)):
        notes.append(f"the files speak of {first.of_images} images in the acquisition, {len(slices)} are here")
    return tuple(notes)


def _letter(direction: np.ndarray) -> str:
    axis = int(np.abs(direction).argmax())
    return "LPS"[axis] if direction[axis] > 0 else "RAI"[axis]


FORMAT = Format("dicom", SUFFIXES, read_volume, write_volume, read_projections, folders=True)
