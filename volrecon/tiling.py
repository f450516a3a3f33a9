"""Index arithmetic of tiles: slice groups of a volume, patches of a slice. No arrays of voxels live here."""

from dataclasses import dataclass

import numpy as np

from volrecon.errors import ConfigError


def adjacent_groups(slices: int, k: int, offset: int = 0) -> np.ndarray:
    """Groups {n, ..., n+k-1} that cover all slices, shape (groups, k); slice numbers in ascending order.

    Groups start at `offset`, `offset + k`, ...; what remains at either end is covered by a group that is moved inwards
    and so overlaps its neighbour. Fewer than k slices: one group, the last slice repeated.

    Args:
        slices: slices of the volume, at least 1.
        k: slices of a group, at least 1.
        offset: 0 to k-1.
    """
    _check(slices, k, 1)
    if not 0 <= offset < k:
        raise ConfigError(f"offset is {offset}; it must be 0 to {k - 1} for groups of {k}")
    if slices <= k:
        return np.minimum(np.arange(k), slices - 1)[None]
    starts = np.arange(offset, slices - k + 1, k)
    starts = np.unique(np.concatenate([[0], starts, [slices - k]]))
    return starts[:, None] + np.arange(k)


def jump_groups(slices: int, k: int, gap: int) -> np.ndarray:
    """Groups {n, n+gap, ..., n+(k-1) gap} that cover all slices, shape (groups, k), after DiffusionBlend++.

    Slices come in blocks of k gap, cut into `gap` interleaved groups; the last block is moved inwards and so overlaps
    the one before it.

    Raises:
        ConfigError: fewer than k gap slices: such groups cannot cover them.
    """
    _check(slices, k, gap)
    block = k * gap
    if slices < block:
        raise ConfigError(f"groups of {k} slices {gap} apart need {block} slices; the volume has {slices}")
    blocks = np.append(np.arange(0, slices - block, block), slices - block)
    starts = np.unique(blocks[:, None] + np.arange(gap))
    return starts[:, None] + gap * np.arange(k)


@dataclass(frozen=True)
class PatchGrid:
    """Square patches that tile a zero-padded slice without overlap, after PaDIS (Hu et al. 2024, section 3).

    With K = 1 + floor(N/P) patches an axis and M = K P - N, the slice lies in the middle of N + 2 M pixels, and a shift
    of 0 to M pixels an axis moves the grid so that it always covers the slice.

    Attributes:
        shape: the slice, (rows, columns).
        patch: P, side of a patch.
    """

    shape: tuple[int, int]
    patch: int

    def __post_init__(self) -> None:
        if self.patch < 1 or min(self.shape) < 1:
            raise ConfigError(f"patches of {self.patch} on slices of {self.shape}: both must be at least 1")

    @property
    def counts(self) -> tuple[int, int]:
        """K, patches (down, across)."""
        return 1 + self.shape[0] // self.patch, 1 + self.shape[1] // self.patch

    @property
    def padding(self) -> tuple[int, int]:
        """M, zeros on either side, and the largest shift (rows, columns)."""
        down, across = self.counts
        return down * self.patch - self.shape[0], across * self.patch - self.shape[1]

    @property
    def padded(self) -> tuple[int, int]:
        """N + 2 M."""
        return self.shape[0] + 2 * self.padding[0], self.shape[1] + 2 * self.padding[1]

    @property
    def positions(self) -> tuple[np.ndarray, np.ndarray]:
        """Coordinate of every (row, column) of the padded slice, from -1 to 1, float32."""
        down, across = (np.linspace(-1, 1, n, dtype=np.float32) for n in self.padded)
        return down, across

    def origin(self, shift: tuple[int, int]) -> tuple[int, int]:
        """Where the slice's first pixel (row, column) lies among the K P pixels of the patches at a shift."""
        if not all(0 <= moved <= most for moved, most in zip(shift, self.padding, strict=True)):
            raise ConfigError(f"a patch grid is shifted by {shift} pixels; each must be 0 to {self.padding}")
        return self.padding[0] - shift[0], self.padding[1] - shift[1]


def _check(slices: int, k: int, gap: int) -> None:
    if min(slices, k, gap) < 1:
        raise ConfigError(f"{slices} slices in groups of {k}, gap {gap}: each must be at least 1")
