"""The Zarr tier: volumes on disk, uncompressed with crc32c, one chunk of whole slices at a time.

One thread a space does all reading and writing, in the order asked, while the caller computes: a read that was asked
for after a write finds what was written. A volume's files go when nobody holds the volume any more, unless the
process ends first: what is on disk then is what `Generations` resumes from.
"""

import itertools
import re
import shutil
import tempfile
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
import torch
import zarr

from volrecon.errors import IntegrityError, ResourceError
from volrecon.store.arrays import create_array
from volrecon.store.chunks import read_chunk, write_chunk
from volrecon.store.durable import writing
from volrecon.volume import BLOCK_BYTES, Space, Volume, chunk_height, slice_bytes

UNWRITTEN = 4
"""Blocks that may wait to be written; a further write waits for the first of them."""


_numbers = itertools.count()
"""Of arrays. None is given twice by a process: a volume that is let go late would delete another's files."""


class ZarrVolume(Volume):
    """A volume in a scratch array of its own, which is deleted by `release`, or when nobody holds the volume.

    A pinned one is not deleted by either.

    Attributes:
        folder: of the Zarr group; its array is `data`.
        unsynced: chunk files written since they were last synced.
    """

    def __init__(self, space: "ZarrSpace", folder: Path, shape: tuple[int, ...]) -> None:
        self.space, self.folder, self.shape = space, folder, shape
        self.unsynced: set[Path] = set()
        self._height = chunk_height(shape)
        self.unpin()

    def pin(self) -> None:
        """Leave the files where they are, whatever becomes of this object."""
        self._remove.detach()

    def unpin(self) -> None:
        """Delete the files with this object again."""
        self._remove = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self._remove.atexit = False

    def read(self, start: int, stop: int) -> torch.Tensor:
        return self.fetch(start, stop)()

    def fetch(self, start: int, stop: int) -> Callable[[], torch.Tensor]:
        begun = self.space.later(self._read, start, stop)

        def block() -> torch.Tensor:
            try:
                return begun.result()
            except IntegrityError:
                self.space.flush()  # a chunk that could not be written is no damage: tell the cause
                raise

        return block

    def write(self, start: int, block: torch.Tensor) -> None:
        self.space.write_later(self._write, start, block)

    def release(self) -> None:
        self.space.later(self._remove)

    def _read(self, start: int, stop: int) -> torch.Tensor:
        out = np.empty((stop - start, *self.shape[1:]), np.float32)
        for first, chunk_start, chunk_stop in self._pieces(start, stop):
            whole = chunk_start == first and chunk_stop == first + self._height
            if whole:
                read_chunk(self.chunk(first), out[chunk_start - start : chunk_stop - start])
            else:
                chunk = self._chunk_values(first)
                out[chunk_start - start : chunk_stop - start] = chunk[chunk_start - first : chunk_stop - first]
        return torch.from_numpy(out)

    def _write(self, start: int, block: torch.Tensor) -> None:
        values = np.ascontiguousarray(block.numpy(), dtype=np.float32)
        for first, chunk_start, chunk_stop in self._pieces(start, start + len(values)):
            piece = values[chunk_start - start : chunk_stop - start]
            path = self.chunk(first)
            if chunk_start != first or chunk_stop != first + self._height:
                # What is replaced whole is not read: a killed process may have left a part of it.
                whole = chunk_start == first and chunk_stop == self.shape[0]
                old = self._chunk_values(first) if path.exists() and not whole else self._unwritten_chunk()
                old[chunk_start - first : chunk_stop - first] = piece
                piece = old
            write_chunk(path, piece)
            self.unsynced.add(path)

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Of every chunk that meets [start, stop): its first slice, and the slices [from, to) they share."""
        for first in range(start // self._height * self._height, stop, self._height):
            yield first, max(start, first), min(stop, first + self._height)

    def chunk(self, first: int) -> Path:
        """The file of the chunk that begins at a slice."""
        return self.folder / "data" / ".".join(["c", str(first // self._height), *("0" for _ in self.shape[1:])])

    def _chunk_values(self, first: int) -> np.ndarray:
        chunk = self._unwritten_chunk()
        read_chunk(self.chunk(first), chunk)
        return chunk

    def _unwritten_chunk(self) -> np.ndarray:
        return np.full((self._height, *self.shape[1:]), np.nan, np.float32)


class ZarrSpace(Space):
    """A folder of scratch arrays; it is made where it does not exist, and stays."""

    def __init__(self, folder: Path, block_bytes: int = BLOCK_BYTES) -> None:
        super().__init__(block_bytes)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise ResourceError(f"cannot make the scratch folder {folder}: {error}") from error
        self.folder = folder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scratch")
        self._unwritten: deque[Future[None]] = deque()

    @staticmethod
    def owns(path: Path) -> bool:
        """Whether a path is named like an array of a space."""
        return re.fullmatch(r"\d{6,}\.zarr", path.name) is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.shutdown()

    def empty(self, shape: tuple[int, ...]) -> ZarrVolume:
        while (folder := self.folder / f"{next(_numbers):06d}.zarr").exists():
            pass
        with writing(folder, slice_bytes(shape) * shape[0]):
            group = zarr.create_group(folder)
            names = ("slice", *(f"axis{k}" for k in range(1, len(shape))))
            create_array(group, "data", shape, (chunk_height(shape), *shape[1:]), names, False, separator=".")
        return ZarrVolume(self, folder, shape)

    def open(self, name: str, shape: tuple[int, ...]) -> ZarrVolume:
        """A volume that an earlier process left in this space, pinned."""
        volume = ZarrVolume(self, self.folder / name, shape)
        volume.pin()
        return volume

    def later(self, call: Callable[..., object], *arguments: object) -> Future:
        """Do something on the disk after everything that was asked for before."""
        return self._thread.submit(call, *arguments)

    def write_later(self, call: Callable[..., None], start: int, block: torch.Tensor) -> None:
        """Write a block in the background. What went wrong with an earlier one is raised here, or by `flush`."""
        while self._unwritten and (self._unwritten[0].done() or len(self._unwritten) >= UNWRITTEN):
            self._unwritten.popleft().result()
        self._unwritten.append(self._thread.submit(call, start, block))

    def flush(self) -> None:
        """Wait until everything is written.

        Raises:
            ResourceError: something could not be.
        """
        waiting = list(self._unwritten)
        self._unwritten.clear()
        for error in [write.exception() for write in waiting]:
            if error is not None:
                raise error


@contextmanager
def temporary_space(parent: Path, block_bytes: int = BLOCK_BYTES) -> Iterator[ZarrSpace]:
    """A space in a folder of its own inside `parent`, deleted at the end."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="volrecon-", dir=parent))
    except (OSError, ValueError) as error:
        raise ResourceError(f"cannot make a scratch folder in {parent}: {error}") from error
    try:
        with ZarrSpace(folder, block_bytes) as space:
            yield space
    finally:
        shutil.rmtree(folder, ignore_errors=True)
