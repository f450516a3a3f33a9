"""What every outside format speaks: lazily read arrays, hints, and errors that name the file."""

import contextlib
import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np

from volrecon.errors import ConfigError, DataError, ResourceError, VolreconError
from volrecon.geometry import VolumeGeometry

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
class ProjectionData:
    """Projections in a file: (v, angle, u), values as stored; `angles` (views,) in radians where the file has them.

    Raises:
        DataError: not three axes, or the number of angles is not the number of projections.
    """

    projections: Sliceable
    angles: np.ndarray | None
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        shape = tuple(self.projections.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise DataError(f"the projections have shape {shape}; expected (v, angle, u), none of them empty")
        if self.angles is not None and self.angles.shape != (shape[1],):
            raise DataError(
                f"{shape[1]} projections but {self.angles.size} angles {self.angles.shape}; they must agree"
            )


@dataclass(frozen=True)
class Format:
    """An outside format: the suffixes it is known by and what can be done with it.

    `read_volume(path, hints)` and `read_projections(path, hints)` open lazily; `write_volume(path, slices, geometry,
    quantity)` takes slices (y, x) one by one, writes float32, and replaces `path` only when it is whole.
    With `folders`, a folder of single files of these suffixes can be read too.
    """

    name: str
    suffixes: tuple[str, ...]
    read_volume: Callable[[Path, Hints], VolumeData] | None = None
    write_volume: Callable[[Path, Iterable[np.ndarray], VolumeGeometry, Quantity], None] | None = None
    read_projections: Callable[[Path, Hints], ProjectionData] | None = None
    folders: bool = False


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Make every failure inside one that a user can act on: a VolreconError whose message names `path`."""
    try:
        yield
    except VolreconError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error.__cause__
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except PermissionError as error:
        raise ResourceError(f"{path}: may not be read ({error.strerror})") from error
    except MemoryError:
        raise
    except Exception as error:
        # Parsers of other people's formats, fed a damaged file, fail with any class of exception there is.
        reason = f"{type(error).__name__}: {error}"[:300]
        raise DataError(f"{path}: damaged, or not what its name says ({reason})") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write under, which becomes `path` at the end and is removed when anything fails.

    Raises:
        ResourceError: the disk or the folder does not let us write.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise ResourceError(f"{path}: cannot be written ({error})") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def float32_slices(slices: Iterable[np.ndarray], geometry: VolumeGeometry) -> Iterator[np.ndarray]:
    """The slices of a volume as C-contiguous float32, one at a time, checked against the grid."""
    depth, *plane = geometry.shape
    count = 0
    for count, values in enumerate(slices, start=1):
        if count > depth or values.shape != tuple(plane):
            raise DataError(
                f"slice {count - 1} of shape {values.shape} does not fit a volume of {geometry.shape} (z, y, x)"
            )
        yield np.ascontiguousarray(values, dtype=np.float32)
    if count < depth:
        raise DataError(f"only {count} slices for a volume of {geometry.shape} (z, y, x)")


def agreed_voxel(
    in_file: tuple[float, float, float] | None, hint: tuple[float, float, float] | None
) -> tuple[float, float, float]:
    """The voxel size (z, y, x) in mm that the file or the hint states; both must agree to a thousandth."""
    voxel = in_file or hint
    if voxel is None:
        raise ConfigError("states no voxel size; give the hint voxel_zyx_mm = (z, y, x) in mm")
    if hint is not None and not np.allclose(voxel, hint, rtol=1e-3, atol=0):
        raise ConfigError(f"states voxels of {voxel} mm (z, y, x), the hint voxel_zyx_mm says {hint}; drop one")
    return voxel


def agreed_quantity(in_file: Quantity | None, hint: Quantity | None) -> Quantity:
    """What the numbers are, as the file or the hint states it; both must agree."""
    quantity = in_file or hint
    if quantity is None:
        raise ConfigError("does not state what its numbers are; give the hint quantity = 'hu' or 'per_mm'")
    if hint is not None and hint != quantity:
        raise ConfigError(f"holds {quantity!r}, the hint quantity says {hint!r}; drop the hint")
    return quantity


def agreed_axes(in_file: AxisOrder | None, hint: AxisOrder | None) -> AxisOrder:
    """The axis order of projections, as the file's layout or the hint states it; the hint wins."""
    axes = hint or in_file
    if axes is None:
        known = ", ".join(map(repr, get_args(AxisOrder)))
        raise ConfigError(f"does not state the order of its axes; give the hint axes, one of {known}")
    return axes


def as_v_angle_u(stored: np.ndarray, axes: AxisOrder) -> np.ndarray:
    """A view of projections stored in the order `axes`, as (v, angle, u)."""
    expected = axes.count(",") + 1
    if stored.ndim != expected:
        raise DataError(f"has shape {stored.shape}; axes {axes!r} need {expected} dimensions")
    if axes == "angle,u":
        return stored[np.newaxis]
    return stored.swapaxes(0, 1) if axes == "angle,v,u" else stored


def required(package: str) -> Any:
    """An optional package, or a ConfigError that says how to install it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(f"{package} is not installed; pip install 'volrecon[io]'") from error
