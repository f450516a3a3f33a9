"""numpy's .npz: named arrays in a zip.

Two layouts are known by their names. Volumes: `volume` or `hu` (z, y, x), with `voxel_zyx_mm` or `spacing_zyx_mm`,
`centre_xyz_mm` and `quantity`. Projections: `projections` (v, angle, u) or `sino` (angle, u), with `angles_rad`,
`angles_deg` or `theta_deg`; counts are `raw` (angle, v, u), with `flat` and `dark`, (v, u) or (frames, v, u), or
`white`. Any other array is had by the hint `key`.
"""

import contextlib
import math
import re
import weakref
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import cast, get_args

import numpy as np

from volrecon.errors import ConfigError, DataError
from volrecon.formats.agreement import agreed_axes, agreed_quantity, agreed_voxel, as_v_angle_u
from volrecon.formats.base import (
    LARGEST_IN_MEMORY,
    AxisOrder,
    Counts,
    Format,
    Hints,
    ProjectionData,
    Quantity,
    SlicedArray,
    VolumeData,
)
from volrecon.formats.files import reading, replacing
from volrecon.formats.npy import Header, check_numbers, read_header, volume_grid, write_array
from volrecon.geometry import VolumeGeometry

LARGEST_MEMBER = 64 * 2**30
LARGEST_SMALL = 64 * 2**20
DEFLATE_RATIO = 1032
"""Deflate cannot shrink anything by more than this: a larger claim is false."""

KNOWN_AXES: dict[str, AxisOrder] = {"projections": "v,angle,u", "sino": "angle,u", "raw": "angle,v,u"}
KEY = re.compile(r"([^\[\]]+)(?:\[(\d{1,9})\])?")


def read_volume(path: Path, hints: Hints) -> VolumeData:
    """A volume (z, y, x) of either layout; `hints.key` chooses among several."""
    with reading(path), zipfile.ZipFile(path) as archive:
        name, index = _chosen(archive, hints.key, ("volume", "hu"))
        slices = _sliced(path, name, index)
        voxel = agreed_voxel(_triple(archive, ("voxel_zyx_mm", "spacing_zyx_mm"), index), hints.voxel_zyx_mm)
        centre = _triple(archive, ("centre_xyz_mm",), None) or (0.0, 0.0, 0.0)
        quantity = agreed_quantity(_quantity(archive, name), hints.quantity)
        notes = (
            f"array {name!r}{'' if index is None else f', volume {index}'}, axes taken as (z, y, x), {slices.shape}",
            f"voxel {voxel} mm (z, y, x), centre {centre} mm (x, y, z), quantity {quantity!r}",
        )
        return VolumeData(slices, volume_grid(slices.shape, voxel, centre), quantity, notes)


def read_projections(path: Path, hints: Hints) -> ProjectionData:
    """Projections of either layout; another array is chosen with `hints.key` and `hints.axes`.

    Only (v, angle, u) is read slab by slab; other orders are read in one piece of at most 4 GiB.
    """
    with reading(path), zipfile.ZipFile(path) as archive:
        name, index = _chosen(archive, hints.key, tuple(KNOWN_AXES))
        axes = agreed_axes(KNOWN_AXES.get(name), hints.axes)
        stored = _sliced(path, name, index)
        projections = stored if axes == "v,angle,u" else _reordered(stored, axes)
        angles, source = _angles(archive)
        notes = (f"array {name!r}, axes taken as ({axes}), {stored.shape}", source)
        if name != "raw":
            return ProjectionData(projections, angles, notes)
        counts, found = _counts(path, archive)
        return ProjectionData(projections, angles, (*notes, found), counts)


def write_volume(path: Path, slices: Iterable[np.ndarray], geometry: VolumeGeometry, quantity: Quantity) -> None:
    """Our own layout: `volume`, `voxel_zyx_mm`, `centre_xyz_mm`, `quantity`; not compressed."""
    small = {
        "voxel_zyx_mm": np.array(geometry.voxel_zyx_mm),
        "centre_xyz_mm": np.array(geometry.centre_xyz_mm),
        "quantity": np.array(quantity),
    }
    with replacing(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        with archive.open("volume.npy", "w", force_zip64=True) as member:
            write_array(member, slices, geometry)
        for name, value in small.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, value, allow_pickle=False)


def _names(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def _chosen(archive: zipfile.ZipFile, key: str | None, defaults: tuple[str, ...]) -> tuple[str, int | None]:
    """Name of the array to read, and the index within it where the hint gives one."""
    names = _names(archive)
    if key is None:
        found = [name for name in defaults if name in names]
        if len(found) != 1:
            raise ConfigError(f"holds the arrays {', '.join(names)[:500]}; say which to read with the hint key")
        return found[0], None
    match = KEY.fullmatch(key)
    if match is None or match[1] not in names:
        raise ConfigError(f"holds no array {key!r}; the hint key may be one of {', '.join(names)[:500]}")
    return match[1], None if match[2] is None else int(match[2])


def _header(archive: zipfile.ZipFile, name: str) -> Header:
    """The checked npy header of a member, whose claims must agree with the zip's."""
    info = archive.getinfo(f"{name}.npy")
    if info.file_size > min(LARGEST_MEMBER, DEFLATE_RATIO * info.compress_size + 1024):
        raise DataError(
            f"array {name!r} claims {info.file_size} bytes, compressed to {info.compress_size}: a zip bomb, or larger "
            f"than the limit of {LARGEST_MEMBER} bytes. Save a large array as .npy."
        )
    with archive.open(info) as member:
        header = read_header(member)
    if header.offset + header.nbytes != info.file_size:
        raise DataError(
            f"array {name!r} claims shape {header.shape} of {header.dtype}, {header.nbytes} bytes, but holds "
            f"{info.file_size - header.offset}"
        )
    return header


def _small(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """A whole array of at most 64 MiB."""
    header = _header(archive, name)
    if header.nbytes > LARGEST_SMALL:
        raise DataError(f"array {name!r} has {header.nbytes} bytes; at most {LARGEST_SMALL} were expected")
    with archive.open(f"{name}.npy") as member:
        return np.asarray(np.lib.format.read_array(member, allow_pickle=False))


def _numbers(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    values = _small(archive, name)
    if values.dtype.kind not in "iuf":
        raise DataError(f"array {name!r} has dtype {values.dtype}; expected numbers")
    return values.astype(np.float64)


def _sliced(path: Path, name: str, index: int | None) -> SlicedArray:
    """An array, or one volume of a 4D array, read through a stream that stays open at the last slab's end."""
    with contextlib.ExitStack() as stack:
        archive = stack.enter_context(zipfile.ZipFile(path))
        header = _header(archive, name)
        check_numbers(header)
        member = stack.enter_context(archive.open(f"{name}.npy"))
        shape, first = _part(name, header.shape, index)
        row = header.nbytes // header.shape[0] if index is None else header.nbytes // (header.shape[0] * shape[0])

        def read(start: int, stop: int) -> np.ndarray:
            member.seek(header.offset + (first + start) * row)
            data = member.read((stop - start) * row)
            return np.frombuffer(data, header.dtype).reshape(stop - start, *shape[1:])

        if header.fortran:
            return SlicedArray.of(path, _whole_fortran(archive, name, header, index))
        array = SlicedArray(path, shape, header.dtype, read)
        weakref.finalize(array, stack.pop_all().close)
        return array


def _part(name: str, shape: tuple[int, ...], index: int | None) -> tuple[tuple[int, ...], int]:
    """Shape of what was asked for, and how many of its axis-0 rows lie before it in the file."""
    if index is None:
        if len(shape) == 4:
            raise ConfigError(f"array {name!r} has shape {shape}; choose one volume with the hint key = '{name}[0]'")
        return shape, 0
    if len(shape) != 4 or index >= shape[0]:
        raise ConfigError(f"array {name!r} has shape {shape}: there is no volume {name}[{index}]")
    return shape[1:], index * shape[1]


def _whole_fortran(archive: zipfile.ZipFile, name: str, header: Header, index: int | None) -> np.ndarray:
    _check_in_memory(header.nbytes, "is in Fortran order")
    with archive.open(f"{name}.npy") as member:
        array = np.asarray(np.lib.format.read_array(member, allow_pickle=False))
    return array if index is None else array[index]


def _reordered(stored: SlicedArray, axes: AxisOrder) -> SlicedArray:
    _check_in_memory(math.prod(stored.shape) * stored.dtype.itemsize, f"has the axes ({axes})")
    return SlicedArray.of(stored.path, as_v_angle_u(stored[:], axes))


def _check_in_memory(nbytes: int, why: str) -> None:
    if nbytes > LARGEST_IN_MEMORY:
        raise DataError(
            f"{why} inside a zip, so it must be read in one piece: {nbytes} bytes, the limit is {LARGEST_IN_MEMORY}. "
            f"Save it as .npy."
        )


def _triple(archive: zipfile.ZipFile, keys: tuple[str, ...], index: int | None) -> tuple[float, float, float] | None:
    """Three lengths under one of the keys; row `index` where there is one row a volume."""
    names = _names(archive)
    for key in keys:
        if key in names:
            values = _numbers(archive, key)
            row = values[index] if values.ndim == 2 and index is not None else values
            if row.shape != (3,):
                raise DataError(f"{key} has shape {values.shape}; expected three numbers")
            return float(row[0]), float(row[1]), float(row[2])
    return None


def _quantity(archive: zipfile.ZipFile, name: str) -> Quantity | None:
    if "quantity" in _names(archive):
        value = str(_small(archive, "quantity"))
        if value not in get_args(Quantity):
            raise DataError(f"its quantity is {value[:40]!r}; expected one of {get_args(Quantity)}")
        return cast(Quantity, value)
    return "hu" if name == "hu" or name.startswith("hu_") else None


def _angles(archive: zipfile.ZipFile) -> tuple[np.ndarray | None, str]:
    """Angles in radians where the file has them, and a line that says whence."""
    names = [name for name in ("angles_rad", "angles_deg", "theta_deg") if name in _names(archive)]
    if not names:
        return None, "the file has no angles"
    if len(names) > 1:
        raise DataError(f"holds angles twice: {' and '.join(names)}; keep one")
    angles = _numbers(archive, names[0])
    if names[0].endswith("_deg"):
        angles = np.deg2rad(angles)
    return angles, f"{angles.size} angles from {names[0]!r}"


def _counts(path: Path, archive: zipfile.ZipFile) -> tuple[Counts, str]:
    """Flats, darks and white level beside counts, and a line that says which there are."""
    names = [name for name in ("flat", "dark", "white") if name in _names(archive)]
    flats, darks = (_frames(path, archive, name) if name in names else None for name in ("flat", "dark"))
    white = None
    if "white" in names:
        level = _numbers(archive, "white")
        if level.size != 1:
            raise DataError(f"array 'white' has shape {level.shape}; expected one number")
        white = float(level.reshape(()))
    return Counts(flats, darks, white), f"its values are taken for counts, with {' and '.join(names) or 'no flat'}"


def _frames(path: Path, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """One frame (v, u) or several, as (frames, v, u)."""
    header = _header(archive, name)
    if len(header.shape) not in (2, 3):
        raise DataError(f"array {name!r} has shape {header.shape}; expected (v, u) or (frames, v, u)")
    _check_in_memory(header.nbytes, f"array {name!r} is")
    values = _sliced(path, name, None)[:]
    return values if values.ndim == 3 else values[np.newaxis]


FORMAT = Format("npz", (".npz",), read_volume, write_volume, read_projections)
