"""TIFF stacks: one multi-page file, or a folder of single-page files in natural order (slice2 before slice10).

A page is a slice (y, x) of a volume, or a view (v, u) of a scan. TIFF states neither voxel size nor unit: hints must.
"""

import math
import re
import struct
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from volrecon.errors import DataError
from volrecon.formats.agreement import agreed_axes, agreed_quantity, agreed_voxel, float32_slices, float32_views
from volrecon.formats.base import (
    LARGEST_IN_MEMORY,
    Format,
    Hints,
    PixelGrid,
    ProjectionData,
    Quantity,
    SlicedArray,
    VolumeData,
)
from volrecon.formats.files import reading, replacing, required
from volrecon.geometry import VolumeGeometry

SUFFIXES = (".tif", ".tiff")


@dataclass(frozen=True)
class Pages:
    """A stack of equal pages; `read(index, start, stop)` gives rows [start, stop) of one, native byte order."""

    path: Path
    count: int
    plane: tuple[int, int]
    dtype: np.dtype
    read: Callable[[int, int, int], np.ndarray]
    note: str

    def along_pages(self) -> SlicedArray:
        """The stack as (page, row, column)."""

        def read(start: int, stop: int) -> np.ndarray:
            return np.stack([self.read(index, 0, self.plane[0]) for index in range(start, stop)])

        return SlicedArray(self.path, (self.count, *self.plane), self.dtype, read)

    def along_rows(self) -> SlicedArray:
        """The stack as (row, page, column): every slab touches every page, and decodes it if it is compressed."""

        def read(start: int, stop: int) -> np.ndarray:
            return np.stack([self.read(index, start, stop) for index in range(self.count)], axis=1)

        shape = (self.plane[0], self.count, self.plane[1])
        return SlicedArray(self.path, shape, self.dtype, read)


def read_volume(path: Path, hints: Hints) -> VolumeData:
    """A volume (z, y, x), a page a slice; needs the hints `voxel_zyx_mm` and `quantity`."""
    with reading(path):
        voxel = agreed_voxel(None, hints.voxel_zyx_mm)
        quantity = agreed_quantity(None, hints.quantity)
        pages = _opened(path)
        geometry = VolumeGeometry((pages.count, *pages.plane), voxel)
        notes = (f"{pages.note}, a page a slice", f"voxel size and quantity {quantity!r} from the hints")
        return VolumeData(pages.along_pages(), geometry, quantity, notes)


def read_projections(path: Path, hints: Hints) -> ProjectionData:
    """Projections, a page a view (v, u) unless `hints.axes` says otherwise. The file has no angles.

    "v,angle,u" is a page a detector row (a stack of sinograms), "angle,u" a single sinogram.
    """
    with reading(path):
        axes = agreed_axes("angle,v,u", hints.axes)
        pages = _opened(path)
        if axes == "angle,u" and pages.count != 1:
            raise DataError(f"has {pages.count} pages; axes 'angle,u' need a single one")
        projections = pages.along_rows() if axes == "angle,v,u" else pages.along_pages()
        content = "a page a view (v, u)" if axes == "angle,v,u" else "a page a detector row (angle, u)"
        return ProjectionData(projections, None, (f"{pages.note}, {content}",))


def write_volume(path: Path, slices: Iterable[np.ndarray], geometry: VolumeGeometry, quantity: Quantity) -> None:
    """A multi-page float32 TIFF, uncompressed; grid and quantity go into its description, for people to read."""
    about = (
        f"volrecon volume, a page a slice, voxel_zyx_mm {geometry.voxel_zyx_mm}, "
        f"centre_xyz_mm {geometry.centre_xyz_mm}, quantity {quantity}"
    )
    _write(path, float32_slices(slices, geometry), geometry.shape, about)


def write_projections(path: Path, views: Iterable[np.ndarray], shape: tuple[int, int, int], pixels: PixelGrid) -> None:
    """A multi-page float32 TIFF, uncompressed, a page a view (v, u); its description is for people to read."""
    about = f"volrecon projections, a page a view (v, u), line integrals, pixel_vu_mm {pixels.size_vu_mm}"
    _write(path, float32_views(views, shape), shape, about)


def _write(path: Path, planes: Iterable[np.ndarray], shape: tuple[int, int, int], about: str) -> None:
    tifffile = required("tifffile")
    big = 4 * math.prod(shape) > 2**31
    with replacing(path) as partial, tifffile.TiffWriter(partial, bigtiff=big) as writer:
        for index, values in enumerate(planes):
            text = about if index == 0 else None
            writer.write(values, photometric="minisblack", metadata=None, description=text, contiguous=False)


def natural(path: Path) -> list[int | str]:
    """Sort key under which numbers inside names count as numbers."""
    parts = re.split(r"([0-9]+)", path.name.lower())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]


def _opened(path: Path) -> Pages:
    return _folder(path) if path.is_dir() else _file(path)


def _file(path: Path) -> Pages:
    tifffile = required("tifffile")
    count = _count_pages(path)
    with ExitStack() as stack:
        tif = stack.enter_context(tifffile.TiffFile(path))
        stated = int((tif.imagej_metadata or {}).get("images", 1)) if tif.is_imagej else 1
        if count < stated:
            raise DataError(f"its ImageJ header claims {stated} images in {count} pages; save it as an ordinary stack")
        plane, dtype = _layout(tif.pages[0])

        def read(index: int, start: int, stop: int) -> np.ndarray:
            return _rows(tif.pages[index], plane, dtype, start, stop)

        note = f"{count} pages of {plane} {dtype}"
        pages = Pages(path, count, plane, dtype, read, note)
        weakref.finalize(pages, stack.pop_all().close)
        return pages


def of_files(folder: Path, files: Sequence[Path]) -> Pages:
    """Files of a single page each, one after the other; `folder` is for messages."""
    tifffile = required("tifffile")

    def first_page(tif: Any, file: Path) -> Any:
        if (count := _count_pages(file)) != 1:
            raise DataError(f"{count} pages; in a folder every file must hold a single one")
        return tif.pages[0]

    with reading(files[0]), tifffile.TiffFile(files[0]) as tif:
        plane, dtype = _layout(first_page(tif, files[0]))

    def read(index: int, start: int, stop: int) -> np.ndarray:
        with reading(files[index]), tifffile.TiffFile(files[index]) as tif:
            return _rows(first_page(tif, files[index]), plane, dtype, start, stop)

    note = f"{len(files)} files, {files[0].name} to {files[-1].name} in natural order, each {plane} {dtype}"
    return Pages(folder, len(files), plane, dtype, read, note)


def _folder(path: Path) -> Pages:
    found = (p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    files = sorted(found, key=natural)
    if not files:
        raise DataError(f"holds no file named {' or '.join('*' + s for s in SUFFIXES)}")
    return of_files(path, files)


def _layout(page: Any) -> tuple[tuple[int, int], np.dtype]:
    """Shape and dtype of a page, after checking that the file holds all of it."""
    if len(page.shape) != 2 or page.dtype is None or page.dtype.kind not in "iuf":
        raise DataError(
            f"page {page.index} has shape {page.shape} of {page.dtype}; expected grey values (rows, columns)"
        )
    if not 0 < page.nbytes <= LARGEST_IN_MEMORY:
        raise DataError(f"page {page.index} claims {page.nbytes} bytes; the limit is {LARGEST_IN_MEMORY}")
    offsets, counts = page.dataoffsets, page.databytecounts
    held = page.parent.filehandle.size
    # tifffile fills missing strips with zeros or leaves them undefined: nothing missing may read as a value.
    whole = len(offsets) == len(counts) == math.prod(page.chunked) and all(
        min(offset, count) > 0 and offset + count <= held for offset, count in zip(offsets, counts, strict=True)
    )
    if not whole or (page.compression == 1 and page.bitspersample >= 8 and sum(counts) < page.nbytes):
        raise DataError(f"page {page.index} is not whole: {len(offsets)} strips for {page.nbytes} bytes in {held}")
    return (int(page.shape[0]), int(page.shape[1])), np.dtype(page.dtype)


def _rows(page: Any, plane: tuple[int, int], dtype: np.dtype, start: int, stop: int) -> np.ndarray:
    """Rows of one page, which must be like the first; only those rows are read where the file allows it."""
    if _layout(page) != (plane, dtype):
        raise DataError(
            f"page {page.index} is {page.shape} {page.dtype}, the first {plane} {dtype}; they must be equal"
        )
    if not page.is_final:
        return cast(np.ndarray, page.asarray()[start:stop])
    stored = dtype.newbyteorder(page.parent.byteorder)
    row_bytes = plane[1] * dtype.itemsize
    file = page.parent.filehandle
    file.seek(page.dataoffsets[0] + start * row_bytes)
    values = file.read_array(stored, (stop - start) * plane[1])
    return cast(np.ndarray, values.reshape(stop - start, plane[1]))


def _count_pages(path: Path) -> int:
    """Pages in the file's chain of directories; tifffile itself forgets the pages beyond a break without an error."""
    with path.open("rb") as file:
        start = file.read(16)
        order = {b"II*\0": "<", b"II+\0": "<", b"MM\0*": ">", b"MM\0+": ">"}.get(start[:4])
        if order is None or len(start) < 16:
            raise DataError(f"starts with {start[:4]!r}: not a TIFF file")
        big = b"+" in start[:4]
        entries, link, entry_bytes = (
            struct.Struct(order + c) for c in (("Q", "Q", "20x") if big else ("H", "I", "12x"))
        )
        (offset,) = link.unpack_from(start, 8 if big else 4)
        seen: set[int] = set()
        while offset:
            if offset in seen:
                raise DataError(f"the directory of page {len(seen) - 1} points back to an earlier one")
            file.seek(offset)
            count = _number(file, entries, len(seen))
            file.seek(offset + entries.size + count * entry_bytes.size)
            seen.add(offset)
            offset = _number(file, link, len(seen) - 1)
    if not seen:
        raise DataError("holds no page")
    return len(seen)


def _number(file: IO[bytes], kind: struct.Struct, page: int) -> int:
    data = file.read(kind.size)
    if len(data) < kind.size:
        raise DataError(f"ends early: the directory of page {page} lies beyond its end")
    return int(kind.unpack(data)[0])


FORMAT = Format(
    "tiff", SUFFIXES, read_volume, write_volume, read_projections, folders=True, write_projections=write_projections
)
