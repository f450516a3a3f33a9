"""The Zarr tier: volumes on disk, uncompressed with crc32c, one chunk of whole slices at a time."""

import itertools
import shutil
import tempfile
from pathlib import Path
from typing import Self

import numpy as np
import torch
import zarr

from volrecon.errors import IntegrityError, ResourceError
from volrecon.store.arrays import create_array
from volrecon.volume import BLOCK_BYTES, Space, Volume, chunk_height


class ZarrVolume(Volume):
    """A volume in a scratch array of its own; `release` deletes it."""

    def __init__(self, folder: Path, array: zarr.Array) -> None:
        self.folder, self.array = folder, array
        self.shape = tuple(array.shape)

    def read(self, start: int, stop: int) -> torch.Tensor:
        try:
            block = np.asarray(self.array[start:stop])
        except (ValueError, RuntimeError, OSError) as error:
            raise IntegrityError(f"scratch {self.folder}, slices {start} to {stop}: {error}") from error
        return torch.from_numpy(block)

    def write(self, start: int, block: torch.Tensor) -> None:
        try:
            self.array[start : start + len(block)] = block.numpy()
        except OSError as error:
            raise ResourceError(
                f"cannot write scratch {self.folder}: {error}. Free space there or --set compute.scratch=FOLDER."
            ) from error

    def release(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class ZarrSpace(Space):
    """A scratch folder of its own inside `parent`, deleted on exit; every volume is a numbered Zarr array in it."""

    def __init__(self, parent: Path, block_bytes: int = BLOCK_BYTES) -> None:
        super().__init__(block_bytes)
        try:
            parent.mkdir(parents=True, exist_ok=True)
            self.folder = Path(tempfile.mkdtemp(prefix="volrecon-", dir=parent))
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise ResourceError(f"cannot make a scratch folder in {parent}: {error}") from error
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def empty(self, shape: tuple[int, ...]) -> ZarrVolume:
        folder = self.folder / f"{next(self._numbers):06d}.zarr"
        group = zarr.create_group(folder)
        names = ("slice", *(f"axis{k}" for k in range(1, len(shape))))
        array = create_array(group, "data", shape, (chunk_height(shape), *shape[1:]), names, compressed=False)
        return ZarrVolume(folder, array)
