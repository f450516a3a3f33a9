"""Writes what an .xtekct can say: a circle of equal steps (or with an .ang), a flat detector upright on the axis.

The axis is written as ObjectOffsetX, which CIL and TIGRE read the same, and not as CentreOfRotationTop, which TIGRE
takes for a length at the axis. Our scans mostly have rows upwards and columns to the right; every reader of the format
has both the other way, and mirrors nothing only if the images are turned. So they are, and our own section [volrecon]
says which way: `write` puts it there, `write_projections` follows it, and our reader turns them back.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from volrecon.errors import ConfigError, DataError
from volrecon.formats.agreement import float32_views
from volrecon.formats.base import PixelGrid
from volrecon.formats.files import reading, replacing, required
from volrecon.formats.nikon_angles import angle_files, check_no_angles, write_angles
from volrecon.formats.nikon_settings import Turned, check_name, load_settings, load_turned
from volrecon.geometry import ScanGeometry, suggest_grid

WHITE_LEVEL = 60_000.0
"""Counts of the open beam; what scanners write."""

TOLERANCE = 1e-6
"""How far a scan may be from a circle with an upright detector, in radians and as a fraction of its length."""

EQUAL_STEPS = 1e-10
"""Radians within which angles count as equal steps."""

SMALLEST_STEP_DEG = 1e-6
"""A mean step below this is no step: AngularStep is written as 0."""


@dataclass(frozen=True)
class Circle:
    """A scan in the words of an .xtekct; lengths in mm, towards growing columns and upwards."""

    degrees: np.ndarray
    equal_steps: bool
    source_to_object: float
    source_to_detector: float
    object_offset: float
    detector_offset_xy: tuple[float, float]
    pixel_xy: tuple[float, float]
    turned: Turned


def write(path: Path, scan: ScanGeometry) -> None:
    """The scan as an .xtekct, and its angles as an .ang beside it where they are not equal steps.

    Writing the images is up to `write_projections`, which needs the .xtekct.

    Raises:
        ConfigError: a scan that an .xtekct cannot state, another scan's angles or images, or a scanner's .xtekct.
    """
    name = path.stem
    with reading(path):
        check_name(name)
        _check_free(path)
        circle = _circle(scan)
        text = _text(name, scan, circle)
        if circle.equal_steps:
            check_no_angles(path, name)
    if not circle.equal_steps:
        write_angles(angle_files(path, name)[0], circle.degrees)
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\r\n")


def write_projections(path: Path, views: Iterable[np.ndarray], shape: tuple[int, int, int], pixels: PixelGrid) -> None:
    """Line integrals as counts, white level times exp(-y), float32, in `<Name>_0001.tif` ... beside an .xtekct of ours.

    Float32 keeps y to 1e-7; CIL cuts counts below 1, which is y above 11. NaN stays NaN.

    Raises:
        ConfigError: no .xtekct of ours is there, or it is another scan's.
        DataError: line integrals beyond what float32 counts can hold, which is about -77 to 98.
    """
    tifffile = required("tifffile")
    if not path.exists():
        raise ConfigError(f"{path} is not there; write the geometry before the projections")
    with reading(path):
        settings, turned = load_settings(path), load_turned(path)
        start = path.with_name(settings.images + settings.input_separator)
        if turned is None:
            raise ConfigError("has no section [volrecon]: it is not volrecon's, and its images are not to be replaced")
        stated = (*settings.detector_shape, settings.projections)
        if (shape[0], shape[2], shape[1]) != stated:
            raise ConfigError(f"states (v, u, angle) {stated}, the projections are {shape} (v, angle, u)")
        if not math.isclose(pixels.size_vu_mm[1], settings.detector_pixel_size_x, rel_tol=TOLERANCE):
            raise ConfigError(f"states pixels of {settings.detector_pixel_size_x} mm in u, not {pixels.size_vu_mm[1]}")
        left = start.with_name(f"{start.name}{settings.projections + 1:0{settings.input_digits}d}.tif")
        if left.exists():
            raise ConfigError(
                f"would leave {left.name} of another scan beside its {settings.projections} images; move it"
            )
    rows, columns = (slice(None, None, -1 if flag else 1) for flag in (turned.rows_reversed, turned.columns_reversed))
    for number, view in enumerate(float32_views(views, shape), start=1):
        file = start.with_name(f"{start.name}{number:0{settings.input_digits}d}.tif")
        counts = _counts(view, settings.white_level, f"{path}: view {number - 1}")
        with replacing(file) as partial:
            tifffile.imwrite(partial, counts[rows, columns], photometric="minisblack", metadata=None)


def _check_free(path: Path) -> None:
    """Refuse to write over a scanner's own files: its images would go with them."""
    image = path.with_name(f"{path.stem}_0001.tif")
    if path.exists() and load_turned(path) is None:
        raise ConfigError("is there and is not volrecon's; choose another name")
    if not path.exists() and image.exists():
        raise ConfigError(f"{image.name} is there, of a scan without an .xtekct; choose another name")


def _counts(view: np.ndarray, white: float, name: str) -> np.ndarray:
    with np.errstate(over="ignore", under="ignore"):
        counts = (white * np.exp(-view.astype(np.float64))).astype(np.float32)
    lost = (counts < np.finfo(np.float32).tiny) | np.isinf(counts)
    if lost.any():
        raise DataError(f"{name} has the line integral {view[lost].flat[0]:g}, which no float32 count can hold")
    return counts


def _circle(scan: ScanGeometry) -> Circle:
    """A scan as a circle about z, with a detector that is upright and across the beam.

    Raises:
        ConfigError: with what differs, and in which view.
    """
    if scan.beam == "parallel" or (scan.beam == "fan" and scan.detector_shape[0] > 1):
        raise ConfigError(f"an .xtekct holds a cone beam, or a fan of one row; this is a {scan.beam} beam {scan.shape}")
    right, ahead, turned = _directions(scan)
    up = np.array([0.0, 0.0, 1.0])
    ray = scan.detector - scan.source
    detector = float((ray * ahead).sum(1).mean())

    def length(name: str, vectors: np.ndarray, direction: np.ndarray, scale: float = detector) -> float:
        return _constant(f"{name} in mm", (vectors * direction).sum(1), TOLERANCE * scale)

    length("source to detector", ray, ahead)
    if abs(height := length("the height of the source", scan.source, up)) > TOLERANCE * detector:
        raise ConfigError(f"the source is at z = {height:g} mm; an .xtekct has it at z = 0")
    axis = -length("source to axis", scan.source, ahead)
    pixel_v, pixel_u = scan.pixel_vu_mm
    length("the step of a column", scan.u, right, pixel_u)
    length("the step of a row", scan.v, up, pixel_v)
    angles = np.unwrap(np.arctan2(right[:, 1], right[:, 0]))
    uneven = np.abs(angles - np.linspace(angles[0], angles[-1], len(angles))).max()
    return Circle(
        degrees=np.rad2deg(angles) + 180,
        equal_steps=bool(uneven < EQUAL_STEPS),
        source_to_object=axis,
        source_to_detector=detector,
        object_offset=length("the offset of the axis", scan.source, right),
        detector_offset_xy=(-length("the detector's offset", ray, right), length("the detector's height", ray, up)),
        # A fan's row step is measured at the axis.
        pixel_xy=(pixel_u, pixel_v * detector / axis if scan.beam == "fan" else pixel_v),
        turned=turned,
    )


def _directions(scan: ScanGeometry) -> tuple[np.ndarray, np.ndarray, Turned]:
    """Unit vectors (views, 3) to the right as seen from the source and away from it, and how columns and rows run."""
    columns = scan.u / np.linalg.norm(scan.u, axis=1)[:, None]
    rows = scan.v / np.linalg.norm(scan.v, axis=1)[:, None]
    leaning = np.hypot(np.abs(columns[:, 2]), np.hypot(rows[:, 0], rows[:, 1]))
    if leaning.max() > TOLERANCE:
        view = int(leaning.argmax())
        raise ConfigError(
            f"the detector of view {view} is tilted by {leaning[view]:.3g} rad; an .xtekct has it upright"
        )
    across = np.cross([0.0, 0.0, 1.0], columns)
    sense = np.sign((across * (scan.detector - scan.source)).sum(1))
    _constant("the sense of the columns", sense, 0.0)
    _constant("the sense of the rows", np.sign(rows[:, 2]), 0.0)
    turned = Turned.model_validate({"RowsReversed": rows[0, 2] > 0, "ColumnsReversed": sense[0] > 0})
    return columns * sense[:, None], across * sense[:, None], turned


def _constant(name: str, values: np.ndarray, tolerance: float) -> float:
    mean = float(values.mean())
    view = int(np.abs(values - mean).argmax())
    if abs(values[view] - mean) > tolerance:
        raise ConfigError(
            f"{name} is {values[view]:.9g} in view {view}, {mean:.9g} in the mean; an .xtekct has one for all views"
        )
    return mean


def _text(name: str, scan: ScanGeometry, circle: Circle) -> str:
    step = float(circle.degrees[-1] - circle.degrees[0]) / max(1, scan.views - 1)
    keys: dict[str, str | int | float] = {
        "Name": name,
        "OperatorID": "",
        "InputSeparator": "_",
        "InputFolderName": "",
        "InputDigits": max(4, len(str(scan.views))),
        **_grid_keys(scan),
        "SrcToObject": circle.source_to_object,
        "SrcToDetector": circle.source_to_detector,
        **_panel_keys(scan.detector_shape[::-1], circle),
        "Units": "mm",
        "Projections": scan.views,
        "InitialAngle": float(circle.degrees[0]),
        "AngularStep": step if abs(step) > SMALLEST_STEP_DEG else 0.0,
        "WhiteLevel": WHITE_LEVEL,
        "ObjectOffsetX": circle.object_offset,
        "ObjectOffsetY": 0.0,
        "ObjectTilt": 0.0,
        "ObjectRoll": 0.0,
    }
    sections = {"XTekCT": keys, "volrecon": circle.turned.model_dump(by_alias=True)}
    return "".join(
        f"[{section}]\n" + "".join(f"{key}={value}\n" for key, value in values.items())
        for section, values in sections.items()
    )


def _grid_keys(scan: ScanGeometry) -> dict[str, int | float]:
    grid = suggest_grid(scan)
    keys: dict[str, int | float] = {"MaskRadius": float(grid.size_xyz_mm[0]) / 2}
    columns = zip("XYZ", grid.shape[::-1], grid.voxel_zyx_mm[::-1], grid.centre_xyz_mm, strict=True)
    for axis, count, size, centre in columns:
        keys |= {f"Voxels{axis}": count, f"VoxelSize{axis}": size, f"Offset{axis}": centre}
    return keys


def _panel_keys(shape_xy: tuple[int, ...], circle: Circle) -> dict[str, int | float]:
    keys: dict[str, int | float] = {}
    columns = zip("XY", shape_xy, circle.pixel_xy, circle.detector_offset_xy, strict=True)
    for axis, count, size, offset in columns:
        keys |= {f"DetectorPixels{axis}": count, f"DetectorPixelSize{axis}": size, f"DetectorOffset{axis}": offset}
        keys |= {f"RegionStart{axis}": 0, f"RegionPixels{axis}": count}
    return keys
