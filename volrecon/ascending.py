"""Slices taken and given in ascending groups: every block of a volume is read once, every chunk written once."""

import numpy as np
import torch

from volrecon.volume import Readable, Volume, chunk_height


class AscendingReader:
    """Gathers slices, and holds the blocks that the slices of one call lie in.

    As long as the smallest slice asked for never falls from call to call, each block is read once, so the source may
    be something that computes its blocks. Any other order is right too, but reads again.

    Args:
        source: (slices, ...).
        height: slices a block, as from `Space.height`.
    """

    def __init__(self, source: Readable, height: int) -> None:
        self.source, self.height = source, height
        self._blocks: dict[int, torch.Tensor] = {}

    def gather(self, ids: np.ndarray) -> torch.Tensor:
        """Slices by number, (*ids.shape, ...)."""
        needed = np.unique(ids // self.height).tolist()
        self._blocks = {n: block for n, block in self._blocks.items() if n >= needed[0]}
        for n in needed:
            if n not in self._blocks:
                start = n * self.height
                self._blocks[n] = self.source.read(start, min(start + self.height, self.source.shape[0]))
        slices = [self._blocks[i // self.height][i % self.height] for i in ids.ravel().tolist()]
        return torch.stack(slices).reshape(*ids.shape, *self.source.shape[1:])


class AscendingWriter:
    """Adds slices up and writes each chunk of the volume once, when all that its slices wait for has arrived.

    Contributions to a slice are added in the order in which they come. What waits is as much as lies between the
    chunk not yet written and the highest slice that came.

    Args:
        volume: (slices, ...), as from `Space.empty`.
        counts: how many contributions each slice waits for, (slices,), all at least 1.
    """

    def __init__(self, volume: Volume, counts: np.ndarray) -> None:
        self.volume, self._missing = volume, counts.copy()
        self._height = chunk_height(volume.shape)
        self._sums: dict[int, torch.Tensor] = {}
        self._written = 0

    def add(self, ids: np.ndarray, slices: torch.Tensor) -> None:
        """Add slices (*ids.shape, ...) to those numbered; a number that appears twice receives both."""
        for i, one in zip(ids.ravel().tolist(), slices.flatten(0, ids.ndim - 1), strict=True):
            if i in self._sums:
                self._sums[i] += one
            else:
                self._sums[i] = one.clone()
            self._missing[i] -= 1
        while self._written < len(self._missing) and not self._missing[self._chunk].any():
            chunk = range(len(self._missing))[self._chunk]
            self.volume.write(chunk.start, torch.stack([self._sums.pop(i) for i in chunk]))
            self._written = chunk.stop

    @property
    def _chunk(self) -> slice:
        return slice(self._written, self._written + self._height)
