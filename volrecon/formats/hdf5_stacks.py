"""A stack of projections inside an HDF5 file: its order, its flats and darks, its angles, and reading it by rows."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from volrecon.errors import DataError
from volrecon.formats.agreement import as_v_angle_u
from volrecon.formats.base import LARGEST_IN_MEMORY, AxisOrder, Counts, PixelGrid, SlicedArray
from volrecon.formats.hdf5_access import numbers
from volrecon.formats.hdf5_texts import attribute

BLOCK_BYTES = 256 * 2**20
"""Kept in memory at most where one row cannot be had without unpacking many."""

DEGREE = math.pi / 180
RADIANS = {"deg": DEGREE, "degs": DEGREE, "degree": DEGREE, "degrees": DEGREE, "°": DEGREE} | {
    "rad": 1.0,
    "rads": 1.0,
    "radian": 1.0,
    "radians": 1.0,
}


@dataclass(frozen=True)
class Stack:
    """What a layout says of its projections.

    Attributes:
        data: the h5py dataset that holds them, in the order `axes`.
        frames: where along the angle axis the projections are, ascending.
        angles: (frames,) in radians, or None.
        notes, counts, pixels: as in `ProjectionData`.

    Raises:
        DataError: angles that are not finite.
    """

    data: Any
    axes: AxisOrder
    frames: np.ndarray
    angles: np.ndarray | None
    notes: tuple[str, ...]
    counts: Counts | None = None
    pixels: PixelGrid | None = None

    def __post_init__(self) -> None:
        if self.angles is not None and (bad := np.count_nonzero(~np.isfinite(self.angles))):
            raise DataError(f"{bad} of the {self.angles.size} angles of its projections are not finite")


def title(data: Any) -> str:
    """A dataset's name, shape and number type, on one line."""
    return f"{data.name!r:.200} {data.shape} {data.dtype}"


def shape_v_angle_u(data: Any, axes: AxisOrder) -> tuple[int, int, int]:
    """The shape of a dataset in the order `axes`, as (v, angle, u).

    Raises:
        DataError: another number of axes, or an empty one.
    """
    if 0 in data.shape:
        raise DataError(f"{title(data)} is empty")
    rows, frames, columns = as_v_angle_u(np.broadcast_to(np.int8(0), data.shape), axes).shape
    return rows, frames, columns


def read_frames(data: Any, axes: AxisOrder, frames: np.ndarray) -> np.ndarray:
    """Some frames of a checked dataset as float32 (frames, v, u).

    Raises:
        DataError: they would not fit 4 GiB.
    """
    rows, _, columns = shape_v_angle_u(data, axes)
    if (nbytes := 4 * len(frames) * rows * columns) > LARGEST_IN_MEMORY:
        raise DataError(
            f"{len(frames)} flats or darks of {title(data)} are {nbytes} bytes; at most {LARGEST_IN_MEMORY}"
        )
    images = np.empty((len(frames), rows, columns), np.float32)
    runs = np.split(np.arange(len(frames)), np.flatnonzero(np.diff(frames) != 1) + 1)
    for run in runs:
        block = _block(data, axes, slice(0, rows), slice(int(frames[run[0]]), int(frames[run[-1]]) + 1))
        images[run] = block.swapaxes(0, 1)
    return images


def read_counts(data: Any, flats: np.ndarray | None, darks: np.ndarray | None) -> tuple[Counts | None, str]:
    """Whether the values are detector counts, and a line that says so.

    Flats and darks belong to counts; without them integers are counts, and floats where their unit says "counts".
    """
    known = [f"{len(images)} {name}" for images, name in ((flats, "flats"), (darks, "darks")) if images is not None]
    held = " and ".join(known) or "no flats or darks"
    if known or data.dtype.kind in "iu" or (attribute(data, "units") or "").lower() == "counts":
        return Counts(flats, darks), f"values taken as detector counts, with {held}"
    return None, "floats without flats and darks: values taken as line integrals"


def read_angles(data: Any) -> tuple[np.ndarray | None, str]:
    """Angles in radians by the dataset's unit, None where that is not known, and a line that says which."""
    unit = attribute(data, "units")
    scale = RADIANS.get((unit or "deg").lower())
    if scale is None:
        return None, f"angles in {data.name!r:.200} have the unknown unit {unit!r:.40} and are not used"
    values = numbers(data)
    said = unit or "degrees (no unit stated)"
    sense = "sense of rotation as stored, set it in geometry.toml ([angles] direction)"
    return values * scale, f"{values.size} angles from {data.name!r:.200} in {said}; {sense}"


def by_rows(path: Path, stack: Stack) -> tuple[SlicedArray, tuple[str, ...]]:
    """The projections (v, angle, u), and a line about the cost of reading them where it is high."""
    rows, _, columns = shape_v_angle_u(stack.data, stack.axes)
    first, last = int(stack.frames[0]), int(stack.frames[-1]) + 1
    chosen = slice(None) if last - first == stack.frames.size else stack.frames - first

    def read(start: int, stop: int) -> np.ndarray:
        return _block(stack.data, stack.axes, slice(start, stop), slice(first, last))[:, chosen]

    row_bytes = (last - first) * columns * stack.data.dtype.itemsize
    axis = stack.axes.split(",").index("v") if "v" in stack.axes else None
    kept, notes = _in_blocks(stack.data, axis, rows, row_bytes, read)
    return SlicedArray(path, (rows, stack.frames.size, columns), stack.data.dtype, kept), notes


def by_slices(path: Path, data: Any) -> tuple[SlicedArray, tuple[str, ...]]:
    """A dataset as it is stored, by its first axis, and a line about the cost of reading it where it is high."""
    row_bytes = math.prod(data.shape[1:]) * data.dtype.itemsize
    kept, notes = _in_blocks(data, 0, data.shape[0], row_bytes, lambda start, stop: data[start:stop])
    return SlicedArray(path, data.shape, data.dtype, kept), notes


def _block(data: Any, axes: AxisOrder, rows: slice, frames: slice) -> np.ndarray:
    index = {"v,angle,u": (rows, frames), "angle,v,u": (frames, rows), "angle,u": (frames,)}[axes]
    return as_v_angle_u(data[index], axes)


Read = Callable[[int, int], np.ndarray]


def _in_blocks(data: Any, axis: int | None, rows: int, row_bytes: int, read: Read) -> tuple[Read, tuple[str, ...]]:
    """`read`, through a kept block of one chunk's rows where the dataset has chunks."""
    if data.chunks is None or axis is None:
        return read, ()
    chunk, affordable = min(data.chunks[axis], rows), max(1, BLOCK_BYTES // row_bytes)
    if chunk <= affordable:
        return KeptBlock(read, rows, chunk, step=chunk), ()
    kept = KeptBlock(read, rows, affordable, step=1)
    if data.id.get_create_plist().get_nfilters() == 0:
        return kept, ()
    note = (
        f"compressed in chunks of {data.chunks}: every {affordable} rows the whole array is unpacked, "
        f"{-(-rows // affordable)} times in all; chunks of few rows are faster (h5repack -l NAME:CHUNK=...)"
    )
    return kept, (note,)


class KeptBlock:
    """Rows read in blocks of `height` that begin at a multiple of `step`; the last block is kept.

    So, in ascending order, a chunk is not unpacked for every slab that touches it.
    """

    def __init__(self, read: Read, rows: int, height: int, step: int) -> None:
        self._read, self._rows, self._height, self._step = read, rows, height, step
        self._first, self._block = 0, np.empty(0)

    def __call__(self, start: int, stop: int) -> np.ndarray:
        if stop - start >= self._height:
            return self._read(start, stop)
        if start < self._first or stop > self._first + len(self._block):
            first = start - start % self._step
            block = self._read(first, min(max(first + self._height, stop), self._rows))
            self._first, self._block = first, block
        return self._block[start - self._first : stop - self._first].copy()
