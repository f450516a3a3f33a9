"""Nikon X-Tek scans: an .xtekct (or .xtek2dct), the TIFF images `<Name>_0001.tif` ... beside it, perhaps angles.

There is no public description of the format. What is taken here is what CIL's NikonDataReader, checked on scans by its
authors, takes:

- Image columns run to the left as seen from the source, rows from top to bottom. The object turns clockwise seen from
  above, so the gantry of our frame turns counter-clockwise, with the source at +y where InitialAngle + i AngularStep
  is 0. SophiaBeads has the same; TIGRE has it upside down, the same rays turned about the central one.
- ObjectOffsetX (mm, at the axis) moves the axis towards growing columns; a positive ObjectRoll (degrees) turns its
  upper end the other way, a positive ObjectTilt turns it towards the detector. TIGRE reads ObjectOffsetX the same.
- CentreOfRotationTop and Bottom, of older files, say in mm on the detector where the image of the axis meets its upper
  and lower edge, towards growing columns. TIGRE takes Top alone, as if it were measured at the axis.
- DetectorOffsetX moves the panel towards growing columns, DetectorOffsetY upwards.

What volrecon wrote says in its own section [volrecon] how the images were turned for all this; they are turned back.

Where CIL is silent: regions count from the upper left pixel; OffsetX, Y, Z are the centre of the suggested grid.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from volrecon.errors import ConfigError, DataError
from volrecon.formats import tiff
from volrecon.formats.base import (
    Counts,
    Format,
    Frame,
    GeometryFormat,
    Hints,
    PixelGrid,
    ProjectionData,
    SlicedArray,
    StatedScan,
)
from volrecon.formats.files import reading
from volrecon.formats.nikon_angles import stage_angles
from volrecon.formats.nikon_settings import Settings, Turned, check_name, load_settings, load_turned
from volrecon.formats.nikon_writer import write, write_projections
from volrecon.geometry import ScanGeometry, VolumeGeometry

SUFFIXES = (".xtekct", ".xtek2dct")


@dataclass(frozen=True)
class Axis:
    """The rotation axis: towards growing columns in mm, roll and tilt in radians with CIL's signs."""

    offset_mm: float
    roll: float
    tilt: float
    note: str


def read_projections(path: Path, hints: Hints) -> ProjectionData:
    """The images of a scan as detector counts, with the white level and the whole geometry of its .xtekct.

    Raises:
        ConfigError: keys that are missing or out of range, or a hint that contradicts the format.
        DataError: images that are missing, damaged or of another size than the .xtekct says.
    """
    with reading(path):
        if hints.axes not in (None, "angle,v,u"):
            raise ConfigError(f"holds an image a view; drop the hint axes = {hints.axes!r}")
        settings = load_settings(path)
        files, unused = _images(path, settings)
        pages = tiff.of_files(files[0].parent, files)
        # The centre slices of SophiaBeads are single sinograms; images of one row each hold the same.
        sinogram = settings.detector_pixels_y == 1 < settings.projections and pages.count == 1
        projections = pages.along_pages() if sinogram else pages.along_rows()
        turned = load_turned(path)
        projections = _turned_back(projections, turned) if turned else projections
        rows, views, columns = projections.shape
        if views != settings.projections:
            raise DataError(f"has {views} images, but Projections={settings.projections}")
        frame = Frame((rows, columns), views)
        stated = _stated(path, settings, frame)
        content = "a single sinogram (angle, u)" if sinogram else "a file a view (v, u)"
        white = f"detector counts; of the open beam WhiteLevel = {settings.white_level:g} in every pixel"
        notes = (f"{pages.note}, {content}{unused}", white)
        counts = Counts(white=settings.white_level)
        return ProjectionData(projections, None, notes, counts, PixelGrid(_pixel(settings)), stated)


def read(path: Path, frame: Frame | None) -> StatedScan:
    """The scan that an .xtekct states; without `frame` for images of the whole panel.

    Raises:
        ConfigError: keys that are missing or out of range.
        DataError: the projections are not of this scan, or the angle file beside it is not.
    """
    with reading(path):
        settings = load_settings(path)
        if frame is not None and frame.views != settings.projections:
            raise DataError(f"has Projections={settings.projections}, but there are {frame.views} projections")
        return _stated(path, settings, frame)


def _images(path: Path, settings: Settings) -> tuple[list[Path], str]:
    """The image files in order, and what to say of those that are not used.

    They lie beside the .xtekct, or else in the folder InputFolderName beside it.
    """
    start = settings.images + settings.input_separator
    folders = [path.parent]
    found = _numbered(path.parent, start, settings.input_digits)
    if not found and settings.input_folder_name:
        check_name(settings.input_folder_name)
        folders.append(path.parent / settings.input_folder_name)
        found = _numbered(folders[-1], start, settings.input_digits)
    if not found:
        name = f"{start}{1:0{settings.input_digits}d}.tif"
        raise DataError(f"there is no image {name} in {' or '.join(map(str, folders))}")
    if settings.detector_pixels_y == 1 and list(found) == [1]:
        return [found[1]], ""
    missing = [number for number in range(1, settings.projections + 1) if number not in found]
    if missing:
        raise DataError(
            f"has Projections={settings.projections}, but {len(missing)} of the images {start}*.tif are missing, the "
            f"first is number {missing[0]}"
        )
    unused = len(found) - settings.projections
    more = f"; {unused} more are numbered above Projections or 0, and not used" if unused else ""
    return [found[number] for number in range(1, settings.projections + 1)], more


def _numbered(folder: Path, start: str, digits: int) -> dict[int, Path]:
    """The TIFF files of a folder by their number."""
    if not folder.is_dir():
        return {}
    pattern = re.compile(re.escape(start) + r"([0-9]{1,9})\.tiff?", re.IGNORECASE)
    matches = ((pattern.fullmatch(entry.name), entry) for entry in folder.iterdir())
    numbered = [(int(match[1]), entry) for match, entry in matches if match and _is_padded(match[1], digits)]
    files = dict(sorted(numbered))
    if len(files) < len(numbered):
        raise DataError(f"{len(numbered)} images {start}*.tif in {folder} have only {len(files)} different numbers")
    return files


def _is_padded(text: str, digits: int) -> bool:
    return text == f"{int(text):0{digits}d}"


def _stated(path: Path, settings: Settings, frame: Frame | None) -> StatedScan:
    shape, first, crop = _seen(settings, frame)
    axis = _axis(settings)
    degrees, whence = stage_angles(path, settings)
    turned = load_turned(path)
    scan = _scan(settings, shape, first, axis, degrees)
    scan = _own_order(scan, turned) if turned else scan
    panel = f"offset {settings.detector_offset_y:g} mm up, {settings.detector_offset_x:g} mm along columns"
    turn = f"{degrees[0] - 180:.6g} to {degrees[-1] - 180:.6g} deg counter-clockwise seen from +z"
    notes = [
        f"{scan.beam} beam in mm, source to axis {settings.src_to_object:g}, to detector {settings.src_to_detector:g}",
        f"detector {shape} pixels (v, u) of {_listed(_pixel(settings))} mm, {panel}{crop}",
        "image columns run to the left as seen from the source, the first row is the top one"
        + (", as volrecon wrote them; turned back" if turned else ""),
        f"axis {axis.note}",
        f"{scan.views} angles in degrees from {whence}: the gantry goes from {turn}, with the source at -y at 0",
    ]
    grid = _grid(settings)
    if grid is not None:
        about = f"of {_listed(grid.voxel_zyx_mm)} mm about OffsetX, Y, Z = {_listed(grid.centre_xyz_mm)} mm"
        notes.append(f"grid from Voxels and VoxelSize, {grid.shape} (z, y, x) {about}")
    return StatedScan(scan, grid, (*notes, *_not_applied(settings)))


def _seen(settings: Settings, frame: Frame | None) -> tuple[tuple[int, int], tuple[int, int], str]:
    """Shape (v, u) of the images, their first pixel on the panel, and what to say of the region."""
    panel, region = settings.detector_shape, settings.region_shape
    if frame is None or frame.detector_shape == panel:
        # CIL and TIGRE know no regions: what they read is whole images, whatever region was reconstructed.
        return panel, (0, 0), "" if region == panel else "; images taken as whole, not as RegionPixels"
    start = settings.region_start_y, settings.region_start_x
    fits = all(s + n <= whole for s, n, whole in zip(start, region, panel, strict=True))
    if frame.detector_shape != region or not fits:
        raise DataError(
            f"its images have {frame.detector_shape} pixels (v, u), its detector {panel}, its region {region} from "
            f"{start}; they must be images of one or the other"
        )
    return region, start, f", images of the region from {start}"


def _axis(settings: Settings) -> Axis:
    top, bottom = settings.centre_of_rotation_top, settings.centre_of_rotation_bottom
    offset, roll = settings.object_offset_x, settings.object_roll
    tilt = np.deg2rad(settings.object_tilt)
    tilted = f", ObjectTilt {settings.object_tilt:g} deg" if settings.object_tilt else ""
    if top is bottom is offset is roll is None:
        return Axis(0.0, 0.0, tilt, f"taken to be in the middle: no centre of rotation is stated{tilted}")
    top, bottom = top or 0.0, bottom or 0.0
    older = (top + bottom) / 2 * settings.src_to_object / settings.src_to_detector
    named = f"CentreOfRotationTop, Bottom = {top:g}, {bottom:g} mm on the detector, {older:.6g} mm there"
    if offset is roll is None:
        height = settings.detector_pixels_y * settings.detector_pixel_size_y
        return Axis(older, np.arctan2(bottom - top, height), tilt, f"at {named}, towards growing columns{tilted}")
    offset, roll = offset or 0.0, roll or 0.0
    if (top or bottom) and abs(offset - older) > 1e-3 * abs(older):
        raise DataError(f"has ObjectOffsetX = {offset:g} mm, but {named}; remove the one or the other")
    note = f"at ObjectOffsetX = {offset:g} mm towards growing columns, ObjectRoll {roll:g} deg{tilted}"
    return Axis(offset, np.deg2rad(roll), tilt, note)


def _scan(
    settings: Settings, shape: tuple[int, int], first: tuple[int, int], axis: Axis, degrees: np.ndarray
) -> ScanGeometry:
    """Vectors about the axis: built beside the source as CIL builds them, then turned so that the axis is z."""
    u = np.array([-settings.detector_pixel_size_x, 0.0, 0.0])
    v = np.array([0.0, 0.0, -settings.detector_pixel_size_y])
    source = np.array([0.0, -settings.src_to_object, 0.0])
    panel = source + np.array([-settings.detector_offset_x, settings.src_to_detector, settings.detector_offset_y])
    rows, columns = (
        start + (n - whole) / 2 for start, n, whole in zip(first, shape, settings.detector_shape, strict=True)
    )
    centre = panel + columns * u + rows * v
    # A single row in the central plane is a fan, whose row step is the height of its slice.
    fan = settings.detector_pixels_y == 1 and not (settings.detector_offset_y or axis.roll or axis.tilt)
    if fan:
        v *= settings.src_to_object / settings.src_to_detector
    foot = np.array([-axis.offset_mm, 0.0, 0.0])
    lab = np.stack([source - foot, centre - foot, u, v]) @ _about_x(-axis.tilt) @ _about_y(axis.roll)
    angles = np.deg2rad(degrees - 180)
    s, c, zero = np.sin(angles), np.cos(angles), np.zeros_like(angles)
    turn = np.stack([c, -s, zero, s, c, zero, zero, zero, zero + 1], axis=1).reshape(-1, 3, 3)
    vectors = np.einsum("aij,kj->aki", turn, lab).reshape(-1, 12)
    return ScanGeometry("fan" if fan else "cone", shape, vectors)


def _own_order(scan: ScanGeometry, turned: Turned) -> ScanGeometry:
    """The scan with pixels in the order that volrecon had when it wrote the images."""
    signs = np.ones(12)
    signs[6:9] = -1 if turned.columns_reversed else 1
    signs[9:12] = -1 if turned.rows_reversed else 1
    return ScanGeometry(scan.beam, scan.detector_shape, scan.vectors * signs)


def _turned_back(projections: SlicedArray, turned: Turned) -> SlicedArray:
    """Images as they were before volrecon turned them for everybody else."""
    columns = slice(None, None, -1 if turned.columns_reversed else 1)
    rows = len(projections)

    def read(start: int, stop: int) -> np.ndarray:
        if turned.rows_reversed:
            return projections[rows - stop : rows - start][::-1, :, columns]
        return projections[start:stop][..., columns]

    return SlicedArray(projections.path, projections.shape, projections.dtype, read)


def _about_x(angle: float) -> np.ndarray:
    s, c = np.sin(angle), np.cos(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def _about_y(angle: float) -> np.ndarray:
    s, c = np.sin(angle), np.cos(angle)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def _grid(settings: Settings) -> VolumeGeometry | None:
    counts = settings.voxels_z, settings.voxels_y, settings.voxels_x
    sizes = settings.voxel_size_z, settings.voxel_size_y, settings.voxel_size_x
    if not min(counts) or not min(sizes):
        return None
    centre = settings.offset_x, settings.offset_y, settings.offset_z
    return VolumeGeometry(counts, sizes, centre)


def _pixel(settings: Settings) -> tuple[float, float]:
    return settings.detector_pixel_size_y, settings.detector_pixel_size_x


def _listed(numbers: Sequence[float]) -> str:
    return f"({', '.join(f'{number:g}' for number in numbers)})"


def _not_applied(settings: Settings) -> list[str]:
    coefficients = [getattr(settings, f"coef_x{power}") for power in (4, 3, 2, 1, 0)]
    found = [f"MaskRadius {settings.mask_radius:g} mm"] if settings.mask_radius else []
    if coefficients != [0, 0, 0, 1, 0]:
        found.append(f"beam hardening CoefX4..0 = {coefficients}")
    if settings.beam_hardening_lut_file:
        found.append("beam hardening table")
    if settings.object_offset_y:
        found.append(f"ObjectOffsetY {settings.object_offset_y:g} mm")
    return [f"not applied: {', '.join(found)}"] if found else []


FORMAT = Format("nikon", SUFFIXES, read_projections=read_projections, write_projections=write_projections)

GEOMETRY = GeometryFormat("nikon", SUFFIXES, read, write)
