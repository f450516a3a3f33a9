"""NIfTI (.nii, .nii.gz), through nibabel.

A NIfTI world is RAS+: x grows to the patient's right, y to the front, z to the head. It is right-handed like ours, so a
volume is turned to (superior, anterior, right) = our (z, y, x) and keeps its place in the world. Projections are taken
as ITK and RTK see them: in ITK's world, where x and y run the other way, (x, y, z) are (u, v, view).
"""

import contextlib
import gzip
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, cast, get_args

import numpy as np

from volrecon.errors import DataError
from volrecon.formats.agreement import agreed_quantity, agreed_voxel, float32_slices
from volrecon.formats.base import (
    LARGEST_IN_MEMORY,
    Format,
    Hints,
    ProjectionData,
    Quantity,
    SlicedArray,
    VolumeData,
)
from volrecon.formats.files import reading, replacing, required
from volrecon.formats.mha import LPS_TO_OURS, itk_projections, pixel_grid
from volrecon.geometry import VolumeGeometry

LARGEST_TILT_DEG = 0.1
LARGEST_NIFTI1 = 32767
"""Voxels an axis; beyond it NIfTI-2 is written."""

DEFLATE_RATIO = 1032
"""gzip cannot shrink anything by more than this: a larger claim is false."""

BLOCK = 2**20
MM_PER_UNIT = {"mm": 1.0, "meter": 1e3, "micron": 1e-3, "unknown": 1.0}
LABEL = "volrecon quantity="


def read_volume(path: Path, hints: Hints) -> VolumeData:
    """A volume, turned to (z, y, x) with positive axes by its affine; sizes and centre come from the affine.

    Needs the hint `quantity`, unless volrecon wrote the file. A volume oblique to its world by more than 0.1 degrees
    is refused. Slices of a .nii.gz are cheap in the order of the file only.
    """
    nibabel = required("nibabel")
    with reading(path):
        image = _opened(nibabel, path)
        shape = _checked_shape(image)
        _check_size(image, path)
        unit = image.header.get_xyzt_units()[0]
        turn = nibabel.io_orientation(image.affine)
        affine = image.affine @ nibabel.orientations.inv_ornt_aff(turn, shape)
        geometry = _grid(affine * MM_PER_UNIT[unit], shape, turn)
        agreed_voxel(geometry.voxel_zyx_mm, hints.voxel_zyx_mm)
        quantity = agreed_quantity(_stated_quantity(image), hints.quantity)
        slices = SlicedArray(path, geometry.shape, _dtype(image), _reader(nibabel, image, turn, len(shape)))
        return VolumeData(slices, geometry, quantity, _notes(nibabel, image, unit, geometry))


def read_projections(path: Path, hints: Hints) -> ProjectionData:
    """Projections that ITK wrote, with their pixel grid; the file has no angles. A .nii.gz is read as a whole."""
    nibabel = required("nibabel")
    with reading(path):
        image = _opened(nibabel, path)
        columns, rows, views = _checked_shape(image)[:3]
        _check_size(image, path)
        unit = image.header.get_xyzt_units()[0]
        affine = np.diag([*LPS_TO_OURS, 1.0]) @ image.affine * MM_PER_UNIT[unit]
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        pixels = pixel_grid(affine[:3, :3] / np.where(spacing > 0, spacing, 1), spacing, affine[:3, 3])
        projections = SlicedArray(path, (rows, views, columns), _dtype(image), _row_reader(image, path))
        return itk_projections(projections, pixels, f"{image.get_data_dtype()}, unit of length: {unit}", hints)


def write_volume(path: Path, slices: Iterable[np.ndarray], geometry: VolumeGeometry, quantity: Quantity) -> None:
    """A float32 NIfTI-1 volume in mm (NIfTI-2 beyond 32767 voxels an axis), axes to right, front, head."""
    nibabel = required("nibabel")
    kind = nibabel.Nifti1Header if max(geometry.shape) <= LARGEST_NIFTI1 else nibabel.Nifti2Header
    header = kind()
    header.set_data_shape(geometry.shape[::-1])
    header.set_data_dtype(np.float32)
    header.set_data_offset(header.single_vox_offset)
    header.set_xyzt_units("mm")
    affine = np.diag([*geometry.voxel_xyz_mm, 1.0])
    affine[:3, 3] = geometry.origin_xyz_mm
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner")
    header["descrip"] = f"{LABEL}{quantity}"
    with replacing(path) as partial, _stream(partial, compress=path.name.lower().endswith(".gz")) as stream:
        header.write_to(stream)
        # NIfTI's first axis varies fastest: our C-ordered (z, y, x) bytes are its (x, y, z).
        for values in float32_slices(slices, geometry):
            stream.write(values.tobytes())


def _opened(nibabel: Any, path: Path) -> Any:
    # Not nibabel.load: it would also try CIFTI, and parse the XML inside.
    is_second = nibabel.Nifti2Image.path_maybe_image(path)[0]
    kind = nibabel.Nifti2Image if is_second else nibabel.Nifti1Image
    return kind.from_filename(path, mmap=False, keep_file_open=True)


def _checked_shape(image: Any) -> tuple[int, ...]:
    shape = tuple(int(n) for n in image.shape)
    if len(shape) < 3 or min(shape) < 1 or math.prod(shape[3:]) != 1:
        raise DataError(f"has shape {shape} (x, y, z, ...); expected one volume of three axes. Extract one first.")
    dtype = image.get_data_dtype()
    if dtype.kind not in "iuf":
        raise DataError(f"has dtype {dtype}; expected integers or floats")
    return shape


def _check_size(image: Any, path: Path) -> None:
    """Refuse a file that does not hold what its header claims; a .gz is read through once, for its checksum too."""
    end = image.dataobj.offset + math.prod(image.shape) * image.get_data_dtype().itemsize
    held = path.stat().st_size
    if path.name.lower().endswith(".gz"):
        held = _unpacked_size(path, end) if end <= held * DEFLATE_RATIO else held
    if held < end:
        raise DataError(f"ends early: its header claims shape {image.shape}, {end} bytes, but the file holds {held}")


def _unpacked_size(path: Path, most: int) -> int:
    size = 0
    with gzip.open(path, "rb") as stream:
        while block := stream.read(BLOCK):
            size += len(block)
            if size > most + BLOCK:
                raise DataError(f"holds more than the {most} bytes that its header claims")
    return size


def _grid(affine: np.ndarray, shape: tuple[int, ...], turn: np.ndarray) -> VolumeGeometry:
    """The grid of a volume turned by `turn`; `affine` maps its turned (x, y, z) indices to mm."""
    matrix = affine[:3, :3]
    if not np.isfinite(affine).all() or np.isnan(turn).any() or not (np.linalg.norm(matrix, axis=0) > 0).all():
        raise DataError(f"its affine is not that of a volume: {affine.tolist()}")
    voxel = np.linalg.norm(matrix, axis=0)
    tilt = np.degrees(np.arccos(np.clip(np.diag(matrix) / voxel, -1, 1))).max()
    if tilt > LARGEST_TILT_DEG:
        raise DataError(
            f"is oblique: its axes are turned by {tilt:.2f} degrees against the world's (at most {LARGEST_TILT_DEG}). "
            f"Resample it to a straight grid first."
        )
    counts = np.array(shape[:3])[np.argsort(turn[:, 0])]
    centre = matrix @ ((counts - 1) / 2) + affine[:3, 3]
    nz, ny, nx = (int(n) for n in counts[::-1])
    dx, dy, dz = (float(size) for size in voxel)
    return VolumeGeometry((nz, ny, nx), (dz, dy, dx), (float(centre[0]), float(centre[1]), float(centre[2])))


def _dtype(image: Any) -> np.dtype:
    """As stored, or float32 where the header scales the values."""
    scaled = (image.dataobj.slope, image.dataobj.inter) != (1.0, 0.0)
    return np.dtype(np.float32) if scaled else image.get_data_dtype()


def _reader(nibabel: Any, image: Any, turn: np.ndarray, ndim: int) -> Any:
    """A function that reads slices [start, stop) of our z from whichever axis of the file holds it."""
    axis = int(np.flatnonzero(turn[:, 0] == 2)[0])
    depth, flipped = image.shape[axis], turn[axis, 1] < 0

    def read(start: int, stop: int) -> np.ndarray:
        index: list[slice | int] = [slice(None)] * 3 + [0] * (ndim - 3)
        index[axis] = slice(depth - stop, depth - start) if flipped else slice(start, stop)
        block = np.asarray(image.dataobj[tuple(index)])
        return cast(np.ndarray, nibabel.apply_orientation(block, turn).T)

    return read


def _row_reader(image: Any, path: Path) -> Any:
    """A function that reads rows [start, stop) of all views, (v, angle, u)."""
    values = image.dataobj
    if path.name.lower().endswith(".gz"):
        if (nbytes := math.prod(image.shape) * _dtype(image).itemsize) > LARGEST_IN_MEMORY:
            raise DataError(f"unpacks to {nbytes} bytes; at most {LARGEST_IN_MEMORY} are unpacked. Save it as .nii")
        values = np.asarray(image.dataobj)
    rest = (0,) * (len(image.shape) - 3)

    def read(start: int, stop: int) -> np.ndarray:
        return np.asarray(values[(slice(None), slice(start, stop), slice(None), *rest)]).transpose(1, 2, 0)

    return read


def _stated_quantity(image: Any) -> Quantity | None:
    """What `write_volume` put into the description, if it is there."""
    text = image.header["descrip"].item().decode("latin1").removeprefix(LABEL)
    return cast(Quantity, text) if text in get_args(Quantity) else None


def _notes(nibabel: Any, image: Any, unit: str, geometry: VolumeGeometry) -> tuple[str, ...]:
    stored = "".join(nibabel.aff2axcodes(image.affine))
    oriented = image.header["sform_code"] > 0 or image.header["qform_code"] > 0
    known = "" if oriented else "; the file states no orientation, NIfTI's default was taken"
    length = "the file names no unit of length, taken as mm" if unit == "unknown" else f"unit of length: {unit}"
    return (
        f"stored as {stored}, turned to axes (z, y, x) = (superior, anterior, right){known}",
        f"voxel {geometry.voxel_zyx_mm} mm (z, y, x), centre {geometry.centre_xyz_mm} mm (x, y, z); {length}",
    )


@contextlib.contextmanager
def _stream(path: Path, *, compress: bool) -> Iterator[IO[bytes]]:
    """A file to write, gzipped without name and time so that equal volumes give equal files."""
    with path.open("wb") as raw:
        if not compress:
            yield raw
            return
        with gzip.GzipFile(filename="", mode="wb", compresslevel=4, fileobj=raw, mtime=0) as packed:
            yield cast(IO[bytes], packed)


FORMAT = Format("nifti", (".nii", ".nii.gz"), read_volume, write_volume, read_projections)
