"""Zarr arrays of other writers, opened after a look at every one of their files.

What a chunk that is not there means differs from writer to writer: by default most leave out chunks that hold nothing
but the fill value, so an absent one may be air or lost. It cannot be told, and is counted.
"""

import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from volrecon.errors import DataError
from volrecon.formats.zarr_metadata import Layout, Node, layout_of

SLACK = 2**20
"""Bytes by which a file may exceed twice the values in it: no codec makes them larger than that."""

CHECKSUM = 4
NOT_THERE = np.uint64(2**64 - 1)
"""Offset and length of a chunk that a shard leaves out."""

BLOSC_HEADER = struct.Struct("<4xIII")
BLOSC_COPY = 2
"""The flag of a Blosc buffer that holds its values as they are."""


@dataclass(frozen=True)
class ForeignArray:
    """An opened zarr.Array, of which `present` of the `expected` chunks are there."""

    array: Any
    layout: Layout
    present: int

    @property
    def expected(self) -> int:
        return math.prod(self.layout.grid)

    @property
    def note(self) -> str:
        """One line about the chunks that are not there."""
        absent = self.expected - self.present
        if not absent:
            return f"all {self.expected} chunks are there"
        return f"{absent} of {self.expected} chunks are absent and read as the fill value {self.array.fill_value}"


def inside(root: Path, path: str) -> Path:
    """The folder `path` of a store, refused when it is not below the root or reached through a link out of it."""
    parts = path.split("/")
    if not path or "\0" in path or "\\" in path or any(part in ("", ".", "..") for part in parts):
        raise DataError(f"names the dataset {path!r:.80}, which is no plain path inside the store")
    folder = root.joinpath(*parts)
    if not folder.resolve().is_relative_to(root.resolve()):
        raise DataError(f"its dataset {path!r:.80} is a link out of the store; copy the data into it")
    return folder


def open_array(node: Node, root: Path) -> ForeignArray:
    """An array of numbers, all of whose files are looked at (not decoded) and counted.

    Args:
        root: the store; no link may lead out of it.

    Raises:
        DataError: what `layout_of` refuses, links out of the store, files that cannot be what they are named, no chunk
            at all, or chunks absent where the array states no fill value.
    """
    import zarr  # here, because whoever imports the formats for another one need not wait for it

    layout = layout_of(node)
    present = sum(_chunks_in(path, index, layout) for path, index in _files(node.folder, root.resolve(), layout))
    expected = math.prod(layout.grid)
    if present == 0:
        raise DataError(f"{node.folder} has none of its {expected} chunks: metadata without data")
    if present < expected and node.metadata["fill_value"] is None:
        raise DataError(f"{node.folder} lacks {expected - present} of {expected} chunks and states no fill value")
    return ForeignArray(zarr.open_array(node.folder, mode="r", zarr_format=node.zarr_format), layout, present)


def _files(folder: Path, root: Path, layout: Layout) -> Iterator[tuple[Path, tuple[int, ...]]]:
    """The array's files with their indices; refuses links out of the store, which Zarr would follow."""
    for place, folders, files in os.walk(folder):  # itself does not follow links
        below = Path(place)
        for name in (*folders, *files):
            if (below / name).is_symlink() and not (below / name).resolve().is_relative_to(root):
                raise DataError(f"{below / name} is a link out of the store; copy the data into it")
        for name in files:
            match = layout.key.fullmatch((below / name).relative_to(folder).as_posix())
            if match is None:
                continue
            index = tuple(int(k) for k in match.groups())
            if all(k * n < size for k, n, size in zip(index, layout.files, layout.shape, strict=True)):
                yield below / name, index


def _chunks_in(path: Path, index: tuple[int, ...], layout: Layout) -> int:
    """How many chunks a file holds."""
    size = path.stat().st_size
    if size > 2 * layout.file_bytes + SLACK:
        raise DataError(f"{path} has {size} bytes for {layout.file_bytes} of values")
    if layout.index is None:
        if layout.blosc:
            with path.open("rb") as stream:
                _check_blosc(path, stream, 0, size, layout)
        return 1
    with path.open("rb") as stream:
        places = _shard_index(path, stream, size, layout)
        # What a shard at the array's end holds beyond it does not count.
        within = tuple(slice(0, n - k * per) for k, per, n in zip(index, layout.shard, layout.grid, strict=True))
        held = [place for place in places[within].reshape(-1, 2) if not (place == NOT_THERE).all()]
        for offset, length in held:
            if int(offset) + int(length) > size:
                raise DataError(f"{path} ends at byte {size}, before a chunk of {length} bytes at {offset}")
            if layout.blosc:
                _check_blosc(path, stream, int(offset), int(length), layout)
    return len(held)


def _shard_index(path: Path, stream: IO[bytes], size: int, layout: Layout) -> np.ndarray:
    """Offset and length of every chunk of a shard, (*shard, 2); Zarr checks its checksum on reading."""
    length = 16 * math.prod(layout.shard)
    if size < length + CHECKSUM:
        raise DataError(f"{path} has {size} bytes; the index of its shard alone needs {length + CHECKSUM}")
    stream.seek(0 if layout.index == "start" else size - length - CHECKSUM)
    return np.frombuffer(stream.read(length), "<u8").reshape(*layout.shard, 2)


def _check_blosc(path: Path, stream: IO[bytes], offset: int, length: int, layout: Layout) -> None:
    """Refuse a Blosc buffer that is not as long as it says: numcodecs believes it and reads beyond the end."""
    stream.seek(offset)
    header = stream.read(BLOSC_HEADER.size)
    held = length - CHECKSUM * (layout.blosc == "before crc32c")
    if len(header) < BLOSC_HEADER.size or held < BLOSC_HEADER.size:
        raise DataError(f"{path} ends early: a chunk of {length} bytes")
    unpacked, _, packed = BLOSC_HEADER.unpack(header)
    copied = bool(header[2] & BLOSC_COPY)
    if packed != held or unpacked > 8 * layout.chunk_bytes or (copied and packed != unpacked + BLOSC_HEADER.size):
        raise DataError(f"{path} is damaged: its header claims {packed} bytes for {unpacked} of values, it has {held}")
