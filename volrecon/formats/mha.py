"""MetaImage (.mha, .mhd): ITK's own format, a text header before raw numbers. Read and written without ITK.

ITK's world is LPS: x grows to the patient's left, y to the back, z to the head. Ours is NIfTI's, right and front, so
x and y change sign on the way: a volume stands at the same place whether it goes through NIfTI or through here.
Projections have no patient: their x is the detector's u, their y is v, their z counts the views, as RTK has them.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import cast, get_args

import numpy as np

from volrecon.errors import ConfigError, DataError
from volrecon.formats.agreement import agreed_quantity, agreed_voxel, as_v_angle_u, float32_slices, float32_views
from volrecon.formats.base import Format, Hints, PixelGrid, ProjectionData, Quantity, SlicedArray, VolumeData
from volrecon.formats.files import reading, replacing
from volrecon.formats.mha_header import Header, read_header
from volrecon.geometry import VolumeGeometry

LARGEST_TILT_DEG = 0.1
LPS_TO_OURS = np.array([-1.0, -1.0, 1.0])
LABEL = "volrecon quantity="


def read_volume(path: Path, hints: Hints) -> VolumeData:
    """A volume, turned to (z, y, x) with positive axes by its TransformMatrix; needs the hint `quantity`.

    A volume oblique to its world by more than 0.1 degrees is refused. A compressed one is read as a whole.
    """
    with reading(path):
        header = read_header(path)
        geometry, axes, flipped = _turned(header, hints)
        quantity = agreed_quantity(_stated_quantity(header), hints.quantity)
        stored = np.flip(header.array().transpose(axes), flipped)
        codes = "".join("RAS"[w] if s > 0 else "LPI"[w] for w, s in _axes_of(header.direction))
        place = "" if header.offset is not None else "; the file states no position, 0 was taken as in ITK"
        notes = (
            f"stored as {codes}, turned to axes (z, y, x) = (superior, anterior, right); {header.note}",
            f"voxel {geometry.voxel_zyx_mm} mm (z, y, x), centre {geometry.centre_xyz_mm} mm (x, y, z){place}",
        )
        return VolumeData(SlicedArray.of(path, stored), geometry, quantity, notes)


def read_projections(path: Path, hints: Hints) -> ProjectionData:
    """Projections, (x, y, z) of ITK taken as (u, v, view), with their pixel grid; the file has no angles."""
    with reading(path):
        header = read_header(path)
        projections = SlicedArray.of(path, as_v_angle_u(header.array(), "angle,v,u"))
        pixels = pixel_grid(header.direction, header.spacing, header.offset)
        return itk_projections(projections, pixels, header.note, hints)


def pixel_grid(direction: np.ndarray, spacing: np.ndarray | None, offset: np.ndarray | None) -> PixelGrid | None:
    """The pixels of projections in ITK's world: `spacing` and `offset` are (u, v, view) in mm.

    Raises:
        DataError: u and v do not run along ITK's x and y.
    """
    if not np.allclose(direction, np.eye(3), rtol=0, atol=1e-4):
        raise DataError(
            f"its axes have the directions {direction.T.tolist()} in ITK's world; the columns of projections run along "
            f"x and their rows along y. Turn the image so that its direction is the identity"
        )
    if spacing is None:
        return None
    if not min(spacing[:2]) > 0:
        raise DataError(f"has pixels of {spacing[:2].tolist()} mm (u, v); expected lengths above 0")
    first = None if offset is None else (float(offset[1]), float(offset[0]))
    return PixelGrid((float(spacing[1]), float(spacing[0])), first)


def itk_projections(projections: SlicedArray, pixels: PixelGrid | None, note: str, hints: Hints) -> ProjectionData:
    """Projections that lie in their file as ITK's (x, y, z) = (u, v, view); `note` is the reader's own line."""
    if hints.axes not in (None, "angle,v,u"):
        raise ConfigError(f"holds a view (v, u) at every z; the hint axes says {hints.axes!r}; drop the hint")
    size = "the file states no pixel size"
    if pixels is not None:
        first = "not stated" if pixels.first_vu_mm is None else f"at {pixels.first_vu_mm} mm"
        size = f"pixels of {pixels.size_vu_mm} mm (v, u), the first one {first} on the detector"
    notes = (f"axes (x, y, z) taken as (u, v, view); {note}", size)
    return ProjectionData(projections, None, notes, pixels=pixels)


def write_volume(path: Path, slices: Iterable[np.ndarray], geometry: VolumeGeometry, quantity: Quantity) -> None:
    """A float32 volume in mm, in one file whatever the suffix; its direction says that x and y run against ITK's."""
    spacing, offset = geometry.voxel_xyz_mm, geometry.origin_xyz_mm * LPS_TO_OURS
    text = _text(geometry.shape, spacing, offset, LPS_TO_OURS, f"Comment = {LABEL}{quantity}")
    _write(path, text, float32_slices(slices, geometry))


def write_projections(path: Path, views: Iterable[np.ndarray], shape: tuple[int, int, int], pixels: PixelGrid) -> None:
    """Float32 projections as RTK reads them: axes (u, v, view), the first pixel at its place on the detector."""
    if pixels.first_vu_mm is None:
        raise ConfigError(f"{path}: the place of the first pixel is not known")
    rows, count, columns = shape
    spacing, offset = (
        np.array([*pair[::-1], last]) for pair, last in ((pixels.size_vu_mm, 1), (pixels.first_vu_mm, 0))
    )
    text = _text((count, rows, columns), spacing, offset, np.ones(3), "Comment = volrecon projections (u, v, view)")
    _write(path, text, float32_views(views, shape))


def _text(
    shape: tuple[int, int, int], spacing: np.ndarray, offset: np.ndarray, diagonal: np.ndarray, comment: str
) -> str:
    def numbers(values: np.ndarray) -> str:
        return " ".join(repr(float(value) + 0.0) for value in values)

    lines = (
        "ObjectType = Image",
        "NDims = 3",
        comment,
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = False",
        f"TransformMatrix = {numbers(np.diag(diagonal).ravel())}",
        f"Offset = {numbers(offset)}",
        "CenterOfRotation = 0 0 0",
        f"ElementSpacing = {numbers(spacing)}",
        f"DimSize = {' '.join(map(str, shape[::-1]))}",
        "ElementType = MET_FLOAT",
        "ElementDataFile = LOCAL",
    )
    return "\n".join(lines) + "\n"


def _write(path: Path, header: str, planes: Iterable[np.ndarray]) -> None:
    with replacing(path) as partial, partial.open("wb") as stream:
        stream.write(header.encode("ascii"))
        for values in planes:
            stream.write(values.astype("<f4", copy=False).tobytes())


def _stated_quantity(header: Header) -> Quantity | None:
    """What `write_volume` put into the comment, if it is there."""
    text = header.comment.removeprefix(LABEL)
    return cast(Quantity, text) if text in get_args(Quantity) else None


def _axes_of(direction: np.ndarray) -> list[tuple[int, float]]:
    """For each axis of the file the axis (x, y, z) of our world it runs along, and whether with it or against it."""
    if not np.allclose(np.linalg.norm(direction, axis=0), 1, rtol=0, atol=1e-3):
        raise DataError(f"its axes have the directions {direction.T.tolist()}; expected unit vectors")
    ours = LPS_TO_OURS[:, None] * direction
    axes = np.abs(ours).argmax(axis=0)
    along = np.abs(ours[axes, range(3)])
    tilt = float(np.degrees(np.arccos(np.clip(along, -1, 1)).max()))
    if tilt > LARGEST_TILT_DEG or sorted(axes) != [0, 1, 2]:
        raise DataError(
            f"is oblique: its axes are turned by {tilt:.2f} degrees against the world's (at most {LARGEST_TILT_DEG}). "
            f"Resample it to a straight grid first."
        )
    return [(int(axis), float(np.sign(ours[axis, a]))) for a, axis in enumerate(axes)]


def _turned(header: Header, hints: Hints) -> tuple[VolumeGeometry, tuple[int, ...], tuple[int, ...]]:
    """The grid in our world, how to transpose the stored (k, j, i) to (z, y, x), and which axes to flip then."""
    axes = _axes_of(header.direction)
    of_zyx = [next(a for a, (axis, _) in enumerate(axes) if axis == w) for w in (2, 1, 0)]
    flipped = tuple(place for place, a in enumerate(of_zyx) if axes[a][1] < 0)
    voxel = agreed_voxel(None if header.spacing is None else _triple(header.spacing[of_zyx]), hints.voxel_zyx_mm)
    counts, spacing = np.array(header.shape)[::-1], np.empty(3)
    spacing[of_zyx] = voxel
    offset = np.zeros(3) if header.offset is None else header.offset
    centre = LPS_TO_OURS * (offset + header.direction @ (spacing * (counts - 1) / 2))
    nz, ny, nx = (int(counts[a]) for a in of_zyx)
    return VolumeGeometry((nz, ny, nx), voxel, _triple(centre)), tuple(2 - a for a in of_zyx), flipped


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])


FORMAT = Format(
    "mha",
    (".mha", ".mhd"),
    read_volume,
    write_volume,
    read_projections,
    write_projections=write_projections,
)
