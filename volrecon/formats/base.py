"""What every outside format speaks: lazily read arrays, hints, and errors that name the file."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np

from volrecon.errors import ConfigError, DataError
from volrecon.formats.files import reading
from volrecon.geometry import ScanGeometry, VolumeGeometry

Quantity = Literal["hu", "per_mm"]
"""What a voxel's number is: Hounsfield units, or linear attenuation in 1/mm."""

AxisOrder = Literal["v,angle,u", "angle,v,u", "angle,u"]
"""How a file orders projections; "angle,u" is one detector row."""

LARGEST_IN_MEMORY = 4 * 2**30
"""Bytes read in one piece where a file's layout forbids reading it by slabs."""


class Sliceable(Protocol):
    """An array, in memory or not, of which slabs along axis 0 can be had as numpy arrays."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __getitem__(self, key: slice, /) -> np.ndarray: ...


class SlicedArray:
    """An array in a file, read when it is sliced along axis 0; iterating gives one index of axis 0 at a time.

    Slabs are cheapest in ascending order. One thread at a time. Reading a damaged file raises DataError naming it.

    Args:
        path: the file, for messages.
        shape: the whole array's.
        dtype: any number type; slabs come in native byte order.
        read: gives the block [start, stop) of axis 0.
    """

    def __init__(
        self, path: Path, shape: tuple[int, ...], dtype: np.dtype, read: Callable[[int, int], np.ndarray]
    ) -> None:
        self.path = path
        self.shape = shape
        self.dtype = np.dtype(dtype).newbyteorder("=")
        self._read = read

    @classmethod
    def of(cls, path: Path, array: np.ndarray) -> "SlicedArray":
        """A view of an array (often a memory map) that came out of a file."""
        return cls(path, array.shape, array.dtype, lambda start, stop: array[start:stop])

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index : index + 1][0] for index in range(len(self)))

    def __getitem__(self, key: slice, /) -> np.ndarray:
        start, stop, step = key.indices(len(self))
        if step != 1:
            raise IndexError(f"{self.path} is read in steps of 1, not {step}")
        if stop <= start:
            return np.empty((0, *self.shape[1:]), self.dtype)
        with reading(self.path):
            return np.asarray(self._read(start, stop), dtype=self.dtype)


@dataclass(frozen=True)
class Hints:
    """What the caller knows of a file that may not state it itself. Nothing is guessed from a shape.

    Attributes:
        key: array name inside a file of several; "hu[3]" is the fourth volume of a 4D array.
        voxel_zyx_mm: voxel size (z, y, x) in mm.
        quantity: "hu" or "per_mm".
        axes: order of the axes of projections.
    """

    key: str | None = None
    voxel_zyx_mm: tuple[float, float, float] | None = None
    quantity: Quantity | None = None
    axes: AxisOrder | None = None

    def __post_init__(self) -> None:
        if self.voxel_zyx_mm is not None and len(self.voxel_zyx_mm) != 3:
            raise ConfigError(f"voxel_zyx_mm is {self.voxel_zyx_mm}; give three lengths (z, y, x) in mm")
        for name, value, known in (("quantity", self.quantity, Quantity), ("axes", self.axes, AxisOrder)):
            if value is not None and value not in get_args(known):
                raise ConfigError(f"{name} is {value!r}; choose one of {', '.join(map(repr, get_args(known)))}")


@dataclass(frozen=True)
class VolumeData:
    """A volume in a file: `slices` (z, y, x) read slab by slab, its grid, its unit, and what the reader assumed.

    Raises:
        DataError: the array's shape is not the grid's.
    """

    slices: Sliceable
    geometry: VolumeGeometry
    quantity: Quantity
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        if tuple(self.slices.shape) != self.geometry.shape:
            raise DataError(f"the volume has shape {self.slices.shape}, its grid {self.geometry.shape} (z, y, x)")


@dataclass(frozen=True)
class PixelGrid:
    """The pixels of a projection image, as its file states them.

    Attributes:
        size_vu_mm: pixel size (v, u) in mm.
        first_vu_mm: detector coordinates (v, u) of the centre of pixel (0, 0) in mm; None where the file has none.
    """

    size_vu_mm: tuple[float, float]
    first_vu_mm: tuple[float, float] | None = None


@dataclass(frozen=True)
class Counts:
    """What turns detector counts into transmission, as far as the projections' file holds it.

    Attributes:
        flats: counts without an object (frames, v, u), or None.
        darks: counts without a beam (frames, v, u), or None.
        white: the count of the open beam, the same for every pixel, or None.
    """

    flats: np.ndarray | None = None
    darks: np.ndarray | None = None
    white: float | None = None


@dataclass(frozen=True)
class StatedScan:
    """What a file says of a scan: the rays, the volume it suggests if any, and how its lines were understood."""

    scan: ScanGeometry
    grid: VolumeGeometry | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ProjectionData:
    """Projections in a file: (v, angle, u), values as stored, and what else the file knows of them.

    Attributes:
        projections: (v, angle, u), read by row blocks.
        angles: (views,) in radians, where the file has them.
        notes: one line for everything that was assumed.
        counts: not None where the file says that its values are detector counts.
        pixels: the pixel grid, where the file has one.
        stated: the whole geometry, where the file has it.

    Raises:
        DataError: not three axes, or the number of angles is not the number of projections.
    """

    projections: Sliceable
    angles: np.ndarray | None
    notes: tuple[str, ...]
    counts: Counts | None = None
    pixels: PixelGrid | None = None
    stated: StatedScan | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.projections.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise DataError(f"the projections have shape {shape}; expected (v, angle, u), none of them empty")
        if self.angles is not None and self.angles.shape != (shape[1],):
            raise DataError(
                f"{shape[1]} projections but {self.angles.size} angles {self.angles.shape}; they must agree"
            )

    @property
    def frame(self) -> "Frame":
        """What a geometry file may leave to the projections."""
        rows, views, columns = self.projections.shape
        return Frame((rows, columns), views, self.angles, self.pixels)


@dataclass(frozen=True)
class Frame:
    """What the projections' own file says, for geometry files that leave it open; see `ProjectionData`."""

    detector_shape: tuple[int, int]
    views: int
    angles: np.ndarray | None = None
    pixels: PixelGrid | None = None


@dataclass(frozen=True)
class Format:
    """An outside format: the suffixes it is known by and what can be done with it.

    `read_volume(path, hints)` and `read_projections(path, hints)` open lazily; `write_volume(path, slices, geometry,
    quantity)` takes slices (y, x) one by one, writes float32, and replaces `path` only when it is whole;
    `write_projections(path, views, shape, pixels)` takes views (v, u) one by one, of projections `shape` (v, angle, u).
    With `folders`, a folder of single files of these suffixes can be read too. With `markers`, what bears the suffix is
    itself a folder, known by its own name or by a file of one of these names in it.
    """

    name: str
    suffixes: tuple[str, ...]
    read_volume: Callable[[Path, Hints], VolumeData] | None = None
    write_volume: Callable[[Path, Iterable[np.ndarray], VolumeGeometry, Quantity], None] | None = None
    read_projections: Callable[[Path, Hints], ProjectionData] | None = None
    folders: bool = False
    write_projections: Callable[[Path, Iterable[np.ndarray], tuple[int, int, int], PixelGrid], None] | None = None
    markers: tuple[str, ...] = ()


@dataclass(frozen=True)
class GeometryFormat:
    """An outside format of scan geometries.

    `read(path, frame)` gives the scan; `frame` is what the projections' file says, or None when there is none at hand
    (a format that cannot do without it raises ConfigError). `write(path, scan)` replaces `path` when it is whole.
    """

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[Path, Frame | None], StatedScan]
    write: Callable[[Path, ScanGeometry], None] | None = None
