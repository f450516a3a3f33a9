"""Volumes: arrays as blocks along axis 0, wherever they live. The one seam for memory tiers.

Blocks are z-slabs of a volume or row blocks of projections, handed out as torch tensors. A solver never holds a
whole volume; it sweeps. `RamSpace` keeps arrays in host memory; `store.ZarrSpace` keeps them on disk.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
import torch
from numba import njit, prange

from volrecon.errors import ConfigError, DataError, ResourceError

BLOCK_BYTES = 32 * 2**20
"""Default size of one array's block in a sweep."""

Begun = TypeVar("Begun")
Blocks = Sequence[torch.Tensor]
Partials = Sequence[np.ndarray]


class Readable(Protocol):
    """What a sweep can read: a Volume, or something that computes its blocks, such as a backprojection."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def read(self, start: int, stop: int) -> torch.Tensor: ...

    def fetch(self, start: int, stop: int) -> Callable[[], torch.Tensor]:
        """Begin to read slices [start, stop); they are the result of what this returns. A disk reads meanwhile."""
        return partial(self.read, start, stop)


class Volume(ABC):
    """A float32 array in blocks along axis 0; made by a `Space`.

    Attributes:
        shape: (slices, ...); whatever follows axis 0 stays whole.
    """

    shape: tuple[int, ...]

    @abstractmethod
    def read(self, start: int, stop: int) -> torch.Tensor:
        """Slices [start, stop), not to be modified: it may be the array itself."""

    def fetch(self, start: int, stop: int) -> Callable[[], torch.Tensor]:
        """As `Readable.fetch`."""
        return partial(self.read, start, stop)

    @abstractmethod
    def write(self, start: int, block: torch.Tensor) -> None:
        """Replace the slices from `start` on; the block must not be modified afterwards."""

    @abstractmethod
    def release(self) -> None:
        """Give the memory or disk space back; the volume must not be used afterwards."""

    def add(self, start: int, block: torch.Tensor) -> None:
        """Add to the slices from `start` on."""
        self.write(start, self.read(start, start + len(block)) + block)

    def gather(self, ids: Sequence[int]) -> torch.Tensor:
        """Slices by index, in the order asked, stacked: (len(ids), ...)."""
        return torch.cat([self.read(i, i + 1) for i in self._checked(ids)])

    def scatter_add(self, ids: Sequence[int], slices: torch.Tensor) -> None:
        """Add to slices by index; an index that appears twice receives both."""
        for i, one in zip(self._checked(ids), slices, strict=True):
            self.add(i, one[None])

    def _checked(self, ids: Sequence[int]) -> list[int]:
        wrong = [i for i in ids if not 0 <= i < self.shape[0]]
        if wrong:
            raise DataError(f"slices {wrong} are not in a volume of {self.shape[0]} slices")
        return [int(i) for i in ids]


class Space(ABC):
    """Where volumes live, and in blocks of how many bytes they are swept."""

    def __init__(self, block_bytes: int = BLOCK_BYTES) -> None:
        if block_bytes < 1:
            raise ConfigError(f"block_bytes is {block_bytes}; give at least 1")
        self.block_bytes = block_bytes

    @abstractmethod
    def empty(self, shape: tuple[int, ...]) -> Volume:
        """A volume whose slices must all be written before they are read."""

    @abstractmethod
    def flush(self) -> None:
        """Wait until everything is written.

        Raises:
            ResourceError: something could not be.
        """

    def zeros(self, shape: tuple[int, ...]) -> Volume:
        return self.full(shape, 0.0)

    def full(self, shape: tuple[int, ...], value: float) -> Volume:
        volume = self.empty(shape)
        for start, stop in self.blocks(shape):
            volume.write(start, torch.full((stop - start, *shape[1:]), value))
        return volume

    def of(self, source: Readable) -> Volume:
        """A copy of something readable."""
        volume = self.empty(source.shape)
        for start, stop in self.blocks(source.shape):
            volume.write(start, source.read(start, stop))
        return volume

    def height(self, shape: tuple[int, ...]) -> int:
        """Slices a block: as many as fit `block_bytes`, in multiples of the chunk, at least one chunk."""
        fitting = self.block_bytes // slice_bytes(shape)
        chunk = chunk_height(shape)
        return min(max(fitting // chunk * chunk, chunk), max(shape[0], 1))

    def halve(self, shape: tuple[int, ...]) -> bool:
        """Take blocks of half the size from now on; False where those of `shape` are as low as they can be."""
        lowest = self.height(shape) <= chunk_height(shape)
        self.block_bytes = max(1, min(self.block_bytes, self.height(shape) * slice_bytes(shape)) // 2)
        return not lowest

    def blocks(self, shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
        """The blocks [start, stop) of an array, ascending."""
        height = self.height(shape)
        for start in range(0, shape[0], height):
            yield start, min(start + height, shape[0])

    def tiles(self, shape: tuple[int, ...], batches: Iterable[Begun], count: int) -> Iterator[Begun]:
        """Batches of tiles of an array, `count` of them, one after the other."""
        yield from batches


CHUNK_SLICES = 16
CHUNK_BYTES = 8 * 2**20


def slice_bytes(shape: tuple[int, ...]) -> int:
    """Bytes of one float32 slice along axis 0; exact for any size (Python integers)."""
    count = 4
    for n in shape[1:]:
        count *= int(n)
    return max(count, 1)


def chunk_height(shape: tuple[int, ...]) -> int:
    """Slices in a chunk of scratch: 16, fewer where 16 slices exceed 8 MiB."""
    return min(CHUNK_SLICES, max(1, CHUNK_BYTES // slice_bytes(shape)), max(shape[0], 1))


def rows_at_once(shape: tuple[int, ...]) -> int:
    """Detector rows of projections (v, angle, u) that a slab is projected to, or from, at once.

    It does not depend on the memory there is: a backprojection then adds the same numbers in the same order.
    """
    return max(1, BLOCK_BYTES // slice_bytes(shape))


class RamVolume(Volume):
    """A volume in host memory, around a (slices, ...) float32 tensor."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor
        self.shape = tuple(tensor.shape)

    def read(self, start: int, stop: int) -> torch.Tensor:
        return self.tensor[start:stop]

    def write(self, start: int, block: torch.Tensor) -> None:
        self.tensor[start : start + len(block)] = block

    def add(self, start: int, block: torch.Tensor) -> None:
        self.tensor[start : start + len(block)] += block

    def release(self) -> None:
        del self.tensor


class RamSpace(Space):
    """Host memory."""

    def flush(self) -> None:
        """Nothing waits to be written."""

    def empty(self, shape: tuple[int, ...]) -> RamVolume:
        try:
            return RamVolume(torch.empty(shape, dtype=torch.float32))
        except RuntimeError as error:  # torch has no MemoryError of its own
            raise ResourceError(
                f"no memory for {slice_bytes(shape) * shape[0] / 2**30:.3g} GiB, an array of {tuple(shape)}; "
                f"use compute.tier = 'zarr', or a smaller grid"
            ) from error


@dataclass(frozen=True)
class Slab:
    """Where a sweep is: slices [start, stop), and how many halo slices the blocks carry below and above."""

    start: int
    stop: int
    below: int = 0
    above: int = 0


def sweep(
    space: Space,
    fn: Callable[..., tuple[Blocks, Partials]],
    inputs: Sequence[Readable],
    outputs: Sequence[Volume] = (),
    halo: int | Sequence[int] = 0,
) -> list[float]:
    """One pass over several arrays of equally many slices, in ascending blocks.

    Args:
        fn: called as fn(slab, *blocks); blocks are not to be modified; those with a halo hold slices
            [start - slab.below, stop + slab.above). It returns the output blocks (without halo) and the reductions:
            float64 partials, one value a slice, as from `slice_dots`.
        outputs: written block by block. An output may be one of the inputs only without a halo.
        halo: 0 or 1 slice of context on either side, cut at the ends of the array; one number, or one an input.

    Returns:
        The reductions, added in slice order, so that they do not depend on the height of the blocks.
    """
    halos = [halo] * len(inputs) if isinstance(halo, int) else list(halo)
    if any(h and out is source for h, source in zip(halos, inputs, strict=True) for out in outputs):
        raise ConfigError("a sweep with a halo cannot write into its own input")
    shapes = [array.shape for array in (*inputs, *outputs)]
    slices = shapes[0][0]
    if any(shape[0] != slices for shape in shapes):
        raise DataError(f"a sweep needs arrays of equally many slices; it got {shapes}")
    widest = max(shapes, key=slice_bytes)

    def begin(start: int, stop: int) -> list[Callable[[], torch.Tensor]]:
        return [array.fetch(max(start - h, 0), min(stop + h, slices)) for array, h in zip(inputs, halos, strict=True)]

    totals: list[float] = []
    for (start, stop), reads in one_ahead(space.blocks(widest), begin):
        slab = Slab(start, stop, min(max(halos), start), min(max(halos), slices - stop))
        results, partials = fn(slab, *(block() for block in reads))
        for out, k in zip(outputs, range(len(results)), strict=True):
            out.write(start, results[k])  # by number: a name would keep the last block
        del reads, results  # before the next block is made
        totals = totals or [0.0] * len(partials)
        for k, slice_values in enumerate(partials):
            for value in slice_values:
                totals[k] += float(value)
    return totals


def one_ahead(
    blocks: Iterable[tuple[int, int]], begin: Callable[[int, int], Begun]
) -> Iterator[tuple[tuple[int, int], Begun]]:
    """Every block [start, stop) with what `begin` made of it, which is called while the block before is in use."""
    waiting: tuple[tuple[int, int], Begun] | None = None
    for block in blocks:
        following = (block, begin(*block))
        if waiting is not None:
            yield waiting
        waiting = following
        del following
    if waiting is not None:
        yield waiting


def slice_dots(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    """Inner product of every slice of two blocks, float64, in an order that depends on nothing but the slice."""
    return _slice_dots(_rows(a), _rows(b))


def _rows(block: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(block.numpy()).reshape(len(block), -1)


@njit(parallel=True, cache=True)
def _slice_dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    count, n = a.shape
    out = np.empty(count, np.float64)
    for k in prange(count):
        # Four running sums hide the latency of an addition; the order stays fixed.
        s0 = s1 = s2 = s3 = 0.0
        whole = n - n % 4
        for i in range(0, whole, 4):
            s0 += np.float64(a[k, i]) * np.float64(b[k, i])
            s1 += np.float64(a[k, i + 1]) * np.float64(b[k, i + 1])
            s2 += np.float64(a[k, i + 2]) * np.float64(b[k, i + 2])
            s3 += np.float64(a[k, i + 3]) * np.float64(b[k, i + 3])
        for i in range(whole, n):
            s0 += np.float64(a[k, i]) * np.float64(b[k, i])
        out[k] = (s0 + s1) + (s2 + s3)
    return out
