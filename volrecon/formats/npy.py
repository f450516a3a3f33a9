"""numpy's .npy: one array, memory-mapped. It states neither voxel size, nor unit, nor axes: hints must."""

import ast
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from volrecon.errors import DataError
from volrecon.formats.agreement import (
    agreed_axes,
    agreed_quantity,
    agreed_voxel,
    as_v_angle_u,
    float32_slices,
    float32_views,
)
from volrecon.formats.base import Format, Hints, PixelGrid, ProjectionData, Quantity, SlicedArray, VolumeData
from volrecon.formats.files import reading, replacing
from volrecon.geometry import VolumeGeometry

MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 10_000
DESCR = re.compile(r"[<>|=]([iufU])\d{1,6}")


@dataclass(frozen=True)
class Header:
    """What an npy header claims; `offset` counts the bytes before the data."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    offset: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(stream: IO[bytes]) -> Header:
    """The header of an npy stream at its start, read without numpy's own reader, which can unpickle.

    Raises:
        DataError: wrong magic, an unreadable header, or anything but numbers and text (so never an object).
    """
    magic = stream.read(8)
    if magic[:6] != MAGIC or len(magic) < 8:
        raise DataError(f"starts with {magic[:6]!r}, not with {MAGIC!r}: not an npy file")
    length_bytes = 2 if magic[6] == 1 else 4
    length = int.from_bytes(stream.read(length_bytes), "little")
    if length > LONGEST_HEADER:
        raise DataError(f"its npy header claims {length} bytes; at most {LONGEST_HEADER} are read")
    fields = ast.literal_eval(stream.read(length).decode("latin1").strip())
    descr, fortran, shape = fields["descr"], fields["fortran_order"], fields["shape"]
    if not isinstance(descr, str) or not DESCR.fullmatch(descr):
        raise DataError(f"has dtype {descr!r}; only integers and floats are read, never pickled objects")
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise DataError(f"its npy header claims the shape {shape!r}")
    return Header(shape, np.dtype(descr), bool(fortran), 8 + length_bytes + length)


def check_numbers(header: Header) -> None:
    """Refuse an array that is empty, a single number, or not of numbers."""
    if header.dtype.kind not in "iuf":
        raise DataError(f"has dtype {header.dtype}; expected integers or floats")
    if header.nbytes == 0 or not header.shape:
        raise DataError(f"has shape {header.shape}: there is no array in it")


def mapped(path: Path) -> np.ndarray:
    """The array of an npy file as a read-only memory map, after checking that the file holds what it claims."""
    with path.open("rb") as stream:
        header = read_header(stream)
    check_numbers(header)
    held = path.stat().st_size - header.offset
    if held < header.nbytes:
        raise DataError(
            f"ends early: its header claims shape {header.shape} of {header.dtype}, {header.nbytes} bytes, "
            f"but {held} follow"
        )
    return np.memmap(
        path, header.dtype, mode="r", offset=header.offset, shape=header.shape, order="F" if header.fortran else "C"
    )


def read_volume(path: Path, hints: Hints) -> VolumeData:
    """A volume (z, y, x); needs the hints `voxel_zyx_mm` and `quantity`."""
    with reading(path):
        array = mapped(path)
        geometry = volume_grid(array.shape, agreed_voxel(None, hints.voxel_zyx_mm))
        quantity = agreed_quantity(None, hints.quantity)
        notes = (f"axes taken as (z, y, x), {array.shape}", f"voxel size and quantity {quantity!r} from the hints")
        return VolumeData(SlicedArray.of(path, array), geometry, quantity, notes)


def volume_grid(
    shape: tuple[int, ...],
    voxel_zyx_mm: tuple[float, float, float],
    centre_xyz_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> VolumeGeometry:
    """The grid of an array that must have three axes."""
    if len(shape) != 3:
        raise DataError(f"has shape {shape}; a volume has three axes (z, y, x)")
    return VolumeGeometry((shape[0], shape[1], shape[2]), voxel_zyx_mm, centre_xyz_mm)


def read_projections(path: Path, hints: Hints) -> ProjectionData:
    """Projections; needs the hint `axes`. The file has no angles."""
    with reading(path):
        axes = agreed_axes(None, hints.axes)
        stored = mapped(path)
        notes = (f"axes taken as ({axes}), {stored.shape}, from the hints",)
        return ProjectionData(SlicedArray.of(path, as_v_angle_u(stored, axes)), None, notes)


def write_volume(path: Path, slices: Iterable[np.ndarray], geometry: VolumeGeometry, quantity: Quantity) -> None:
    """The values only: an npy file has no room for the grid or the quantity."""
    with replacing(path) as partial, partial.open("wb") as stream:
        write_array(stream, slices, geometry)


def write_projections(path: Path, views: Iterable[np.ndarray], shape: tuple[int, int, int], pixels: PixelGrid) -> None:
    """Projections (v, angle, u), written view by view; the values only, as with volumes."""
    rows, count, columns = shape
    with replacing(path) as partial, partial.open("wb") as stream:
        _write_header(stream, shape)
        start, row_bytes = stream.tell(), 4 * columns
        for view, values in enumerate(float32_views(views, shape)):
            for row in range(rows):
                stream.seek(start + (row * count + view) * row_bytes)
                stream.write(values[row].tobytes())


def write_array(stream: IO[bytes], slices: Iterable[np.ndarray], geometry: VolumeGeometry) -> None:
    """A float32 npy array (z, y, x), written slice by slice."""
    _write_header(stream, geometry.shape)
    for values in float32_slices(slices, geometry):
        stream.write(values.tobytes())


def _write_header(stream: IO[bytes], shape: tuple[int, int, int]) -> None:
    descr = np.lib.format.dtype_to_descr(np.dtype(np.float32))
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})


FORMAT = Format("npy", (".npy",), read_volume, write_volume, read_projections, write_projections=write_projections)
