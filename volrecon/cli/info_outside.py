"""What `info` says of other people's files: each is tried as a geometry, as a volume and as projections."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from volrecon.cli.described import Asked, Described, picture_title, rounded, scan_lines, value_range
from volrecon.errors import ConfigError, DataError, GeometryError, VolreconError
from volrecon.figures import geometry_figure, projections_figure, scan_figure, volume_figure
from volrecon.formats import (
    GEOMETRIES,
    Format,
    Hints,
    ProjectionData,
    StatedScan,
    VolumeData,
    format_of,
    geometry_format_of,
    read_geometry,
)
from volrecon.geometry import suggest_grid

QUICK_BYTES = 2**30
"""Projections up to this size have their middle row read, which may mean unpacking all of them."""

STAND_INS: dict[str, tuple[Any, ...]] = {
    "quantity": ("per_mm",),
    "voxel_zyx_mm": ((1.0, 1.0, 1.0),),
    "axes": ("angle,v,u", "angle,u"),
}
"""Hints made up to learn the rest of a file that lacks them; nothing that follows from them is said."""

OPTIONS = {"quantity": "--quantity", "voxel_zyx_mm": "--file-voxel-mm", "axes": "--axes"}

T = TypeVar("T")


@dataclass
class Found:
    """All that a file can be read as.

    Attributes:
        volume_lacks, projections_lack: names of the hints that were made up to open it.
        needs: why it is not read as more than this, in whole sentences.
    """

    geometry: StatedScan | None = None
    volume: VolumeData | None = None
    volume_lacks: tuple[str, ...] = ()
    projections: ProjectionData | None = None
    projections_lack: tuple[str, ...] = ()
    needs: list[str] = field(default_factory=list)

    @property
    def scan(self) -> StatedScan | None:
        """The geometry of the projections."""
        return self.geometry if self.projections is not None and not self.projections_lack else None

    @property
    def is_complete(self) -> bool:
        """Whether there is a way to read the file that needs nothing more."""
        arrays = ((self.volume, self.volume_lacks), (self.projections, self.projections_lack))
        return self.geometry is not None or any(data is not None and not lacks for data, lacks in arrays)

    @property
    def lacking(self) -> str:
        return " and ".join(OPTIONS[name] for name in (*self.volume_lacks, *self.projections_lack))


def has_format(path: Path) -> bool:
    return _array_format(path) is not None or _is_geometry(path)


def outside(path: Path, asked: Asked) -> Described:
    """A file of a registered format, in every way in which it can be read.

    Raises:
        VolreconError: it cannot be read at all.
    """
    found = _found(path, asked)
    return Described(_lines(path, found), lambda picture: _draw(path, found, picture))


def geometry_suffixes() -> tuple[str, ...]:
    return tuple(dict.fromkeys(suffix for known in GEOMETRIES.values() for suffix in known.suffixes))


def _found(path: Path, asked: Asked) -> Found:
    found, known, hints = Found(), _array_format(path), asked.hints
    refusals: dict[str, VolreconError] = {}
    if known and (read_volume := known.read_volume):
        with _kept(refusals, "volume"):
            found.volume, found.volume_lacks = _opened(read_volume, path, hints, ("quantity", "voxel_zyx_mm"))
    if known and (read_projections := known.read_projections):
        with _kept(refusals, "projections"):
            found.projections, found.projections_lack = _opened(read_projections, path, hints, ("axes",))
    if found.projections is not None and asked.geometry is not None:
        found.geometry = _geometry_of(asked.geometry, found)
    elif found.projections is not None and found.projections.stated is not None:
        found.geometry = found.projections.stated
    elif _is_geometry(path):
        with _kept(refusals, "geometry"):
            found.geometry = read_geometry(path)
    _raise_what_matters(path, asked, found, refusals)
    if found.volume is None and found.projections is None:
        found.needs = [str(error) for error in refusals.values()]
    elif not found.is_complete:
        found.needs = [str(error) for error in refusals.values() if isinstance(error, ConfigError)]
    return found


@contextlib.contextmanager
def _kept(refusals: dict[str, VolreconError], kind: str) -> Iterator[None]:
    """Keep a refusal: the file may be of another kind."""
    try:
        yield
    except VolreconError as error:
        refusals[kind] = error


def _raise_what_matters(path: Path, asked: Asked, found: Found, refusals: dict[str, VolreconError]) -> None:
    """Raise where nothing was found, or not what the caller's hints were for."""
    hints = asked.hints
    if "projections" in refusals and (hints.axes is not None or asked.geometry is not None):
        raise refusals["projections"]
    if found.projections is None and asked.geometry is not None:
        raise ConfigError(f"{path}: --geometry goes with projections, and this format holds none")
    if "volume" in refusals and (hints.quantity is not None or hints.voxel_zyx_mm is not None):
        raise refusals["volume"]
    if found != Found():
        return
    if isinstance(refusals.get("geometry"), ConfigError) and len(refusals) == 1:
        raise ConfigError(f"{refusals['geometry']} (volrecon info PROJECTIONS --geometry {path})")
    raise min(refusals.values(), key=lambda error: not isinstance(error, DataError))


def _array_format(path: Path) -> Format | None:
    try:
        return format_of(path) if path.is_dir() or path.is_file() else None
    except ConfigError:
        return None


def _is_geometry(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(geometry_suffixes())


def _opened(
    read: Callable[[Path, Hints], T], path: Path, hints: Hints, names: tuple[str, ...]
) -> tuple[T, tuple[str, ...]]:
    """The data with the names of the hints that had to be made up, as few as possible.

    Raises:
        ConfigError: something is missing that cannot be made up, such as which array is meant.
        DataError: not readable this way.
    """
    try:
        return read(path, hints), ()
    except GeometryError:
        raise
    except ConfigError as error:
        refusal: VolreconError = error
    lacking = [name for name in names if getattr(hints, name) is None]
    for count in range(1, len(lacking) + 1):
        for missing in combinations(lacking, count):
            for values in zip(*(STAND_INS[name] for name in missing), strict=True):
                try:
                    return read(path, replace(hints, **dict(zip(missing, values, strict=True)))), missing
                except DataError as error:
                    refusal = error
                except ConfigError:
                    pass  # the first one says best what is missing
    raise refusal


def _geometry_of(geometry: Path, found: Found) -> StatedScan:
    """The geometry in a file that goes with the projections found."""
    if found.projections is None or found.projections_lack:
        raise ConfigError(f"{geometry}: before a geometry can go with them, the projections need {found.lacking}")
    stated = read_geometry(geometry, found.projections.frame)
    shape = tuple(found.projections.projections.shape)
    if stated.scan.shape != shape:
        raise DataError(f"{geometry} states {stated.scan.shape} (v, angle, u), the projections are {shape}")
    return stated


def _lines(path: Path, found: Found) -> Iterator[str]:
    if found.volume is not None:
        yield from _volume_lines(path, found.volume, found.volume_lacks)
    if found.projections is not None:
        yield from _projection_lines(path, found.projections, found.projections_lack)
    if found.geometry is not None:
        if found.scan is None:
            yield f"{path}: geometry ({geometry_format_of(path).name})"
        yield from scan_lines(found.geometry.scan, found.geometry.grid)
        yield from found.geometry.notes
    elif found.projections is not None:
        yield "as projections it does not say where the rays are: --geometry names a file that does"
    yield from found.needs
    if not found.is_complete:
        yield f"what a file does not state is given with {', '.join(OPTIONS.values())}, --key, --geometry"


def _volume_lines(path: Path, data: VolumeData, lacks: tuple[str, ...]) -> Iterator[str]:
    grid = data.geometry
    size = "" if "voxel_zyx_mm" in lacks else f" of {rounded(grid.voxel_zyx_mm)} mm"
    quantity = "" if "quantity" in lacks else f", {data.quantity}"
    yield f"{path}: {format_of(path).name}, volume {grid.shape}{size} (z, y, x), {data.slices.dtype}{quantity}"
    if lacks:
        yield f"to use it as a volume, state {' and '.join(OPTIONS[name] for name in lacks)}"
    else:
        yield from data.notes
    middle = grid.shape[0] // 2
    yield f"middle slice: {value_range(np.asarray(data.slices[middle : middle + 1]))}"


def _projection_lines(path: Path, data: ProjectionData, lacks: tuple[str, ...]) -> Iterator[str]:
    shape = tuple(data.projections.shape)
    start = f"{path}: {format_of(path).name}, projections"
    if lacks:
        yield f"{start} of {math.prod(shape)} values, {data.projections.dtype}; --axes says in which order"
        return
    rows, views, columns = shape
    yield f"{start} {shape} (v, angle, u), {data.projections.dtype}"
    yield from data.notes
    if data.angles is not None:
        first, last = np.rad2deg(data.angles[[0, -1]])
        yield f"angles in the file: {first:.6g} to {last:.6g} deg"
    if data.counts is not None:
        flats, darks = (0 if part is None else len(part) for part in (data.counts.flats, data.counts.darks))
        white = "" if data.counts.white is None else f", open beam {data.counts.white:g}"
        yield f"detector counts with {flats} flats and {darks} darks{white}"
    if data.pixels is not None:
        yield f"pixels of {rounded(data.pixels.size_vu_mm)} mm (v, u)"
    if rows * views * columns * data.projections.dtype.itemsize <= QUICK_BYTES:
        yield f"middle row: {value_range(np.asarray(data.projections[rows // 2 : rows // 2 + 1]))}"


def _draw(path: Path, found: Found, picture: Path) -> None:
    """The fullest that there is: a scan, a volume, projections, a geometry."""
    projections = None if found.projections_lack else found.projections
    volume = None if "voxel_zyx_mm" in found.volume_lacks else found.volume
    if found.geometry is not None:
        scan, grid = found.geometry.scan, found.geometry.grid or suggest_grid(found.geometry.scan)
        title = picture_title(path, scan)
        if projections is None:
            geometry_figure(picture, scan, grid, title=title)
        else:
            scan_figure(picture, projections.projections, scan, grid, title=title)
    elif volume is not None and (projections is None or projections.counts is None):
        quantity = None if found.volume_lacks else volume.quantity
        volume_figure(picture, volume.slices, volume.geometry, quantity, title=f"{picture_title(path)}: volume")
    elif projections is not None:
        projections_figure(
            picture,
            projections.projections,
            angles_rad=projections.angles,
            pixel_vu_mm=projections.pixels.size_vu_mm if projections.pixels else (1.0, 1.0),
            title=f"{picture_title(path)}: projections",
        )
    else:
        raise ConfigError(f"{path}: for a picture, state {found.lacking or '; '.join(found.needs)}")
