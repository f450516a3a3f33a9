"""Index arithmetic of tiles: slice groups of a volume, patches of a slice. No arrays of voxels live here."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

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
    """A slice and the zeros that its patches may reach into, after PaDIS (Hu et al. 2024, section 3).

    With K = 1 + floor(N/P) patches an axis and M = K P - N, the slice lies in the middle of N + 2 M pixels. Whatever
    the patches of a reconstruction, the network is told where they lie among these pixels, as it was in training.

    Attributes:
        shape: the slice, (rows, columns).
        patch: P, side of a patch, as trained.
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
        return _margin(self.shape[0], self.patch), _margin(self.shape[1], self.patch)

    @property
    def padded(self) -> tuple[int, int]:
        """N + 2 M."""
        return self.shape[0] + 2 * self.padding[0], self.shape[1] + 2 * self.padding[1]

    @property
    def positions(self) -> tuple[np.ndarray, np.ndarray]:
        """Coordinate of every (row, column) of the padded slice, from -1 to 1, float32."""
        down, across = (np.linspace(-1, 1, n, dtype=np.float32) for n in self.padded)
        return down, across


@dataclass(frozen=True, eq=False)
class PatchAxis:
    """Patches along one axis of a slice of N pixels, in the slice's own pixel numbers.

    Attributes:
        side: pixels of a patch.
        starts: first pixel of every patch, ascending, below 0 in the zeros beside the slice: (patches,) int64.
        weights: of every pixel of every patch, (patches, side) float32; over the patches that hold a pixel of the slice
            they add up to 1, and they are 0 beside the slice.
        positions: coordinate of every pixel of the padded slice, -1 to 1, (N + 2 M,) float32.
        length: N.
    """

    side: int
    starts: np.ndarray
    weights: np.ndarray
    positions: np.ndarray
    length: int

    @property
    def margin(self) -> int:
        """M, the zeros on either side."""
        return (len(self.positions) - self.length) // 2

    @property
    def covering(self) -> np.ndarray:
        """The patches [first, stop) that hold each pixel of the slice: (N, 2) int64."""
        pixels = np.arange(self.length)
        first = np.searchsorted(self.starts + self.side, pixels, side="right")
        return np.stack([first, np.searchsorted(self.starts, pixels, side="right")], axis=1)

    def coordinates(self, k: int) -> np.ndarray:
        """Where the pixels of patch k lie in the padded slice, -1 to 1: (side,) float32."""
        first = self.starts[k] + self.margin
        return self.positions[first : first + self.side]

    @property
    def inside(self) -> np.ndarray:
        """Which pixels of every patch lie in the slice: (patches, side) bool."""
        at = self.starts[:, None] + np.arange(self.side)
        return (at >= 0) & (at < self.length)


@dataclass(frozen=True, eq=False)
class PatchLayout:
    """The patches of a slice: every pair of a patch down and a patch across, row by row."""

    down: PatchAxis
    across: PatchAxis

    @property
    def shape(self) -> tuple[int, int]:
        """The slice, (rows, columns)."""
        return self.down.length, self.across.length

    @property
    def side(self) -> tuple[int, int]:
        """A patch, (rows, columns)."""
        return self.down.side, self.across.side

    @property
    def counts(self) -> tuple[int, int]:
        """Patches (down, across)."""
        return len(self.down.starts), len(self.across.starts)

    @property
    def all(self) -> range:
        """The patches by number."""
        return range(self.counts[0] * self.counts[1])

    @cached_property
    def unweighted(self) -> "PatchLayout":
        """The same patches with weight 1 for every pixel in the slice, so that overlaps add up."""
        down, across = (replace(axis, weights=axis.inside.astype(np.float32)) for axis in (self.down, self.across))
        return PatchLayout(down, across)


Cut = tuple[int, np.ndarray, np.ndarray]
"""Patches along an axis before their weights are normalised: side, starts (patches,), window (patches, side)."""


def _shifting(n: int, patch: int, shift: int, overlap: int) -> Cut:
    """K patches side by side, at a shift of 0 to M: PaDIS."""
    count, margin = 1 + n // patch, _margin(n, patch)
    if not 0 <= shift <= margin:
        raise ConfigError(f"patches of {patch} on {n} pixels are shifted by {shift}; it must be 0 to {margin}")
    return patch, shift - margin + patch * np.arange(count), np.ones((count, patch))


def _averaging(n: int, patch: int, shift: int, overlap: int) -> Cut:
    """A fixed grid in the middle of the padded slice; where patches overlap, their mean: patch averaging."""
    if not 0 <= overlap < patch:
        raise ConfigError(f"patches of {patch} pixels overlap by {overlap}; it must be 0 to {patch - 1}")
    margin, stride = _margin(n, patch), patch - overlap
    count = 1 + max(0, -(-(n - patch) // stride))
    first = (n - patch - (count - 1) * stride) // 2
    # A slice just short of a multiple of P has less padding than this grid would take.
    starts = np.clip(first + stride * np.arange(count), -margin, n + margin - patch)
    return patch, starts, np.ones((count, patch))


def _hann(n: int, patch: int, shift: int, overlap: int) -> Cut:
    """The same grid; overlaps are blended with a Hann window, whose zeros lie half a pixel beside the patch."""
    _, starts, _ = _averaging(n, patch, shift, overlap)
    window = np.sin(np.pi * (np.arange(patch) + 0.5) / patch) ** 2
    return patch, starts, np.tile(window, (len(starts), 1))


def _stitching(n: int, patch: int, shift: int, overlap: int) -> Cut:
    """The same grid; later patches overwrite earlier ones: patch stitching."""
    _, starts, _ = _averaging(n, patch, shift, overlap)
    left = np.append(np.diff(starts), patch)
    return patch, starts, (np.arange(patch) < left[:, None]).astype(float)


def _whole(n: int, patch: int, shift: int, overlap: int) -> Cut:
    """One patch, the slice."""
    return n, np.zeros(1, np.int64), np.ones((1, n))


MODES: dict[str, Callable[[int, int, int, int], Cut]] = {
    "padis": _shifting,
    "average": _averaging,
    "hann": _hann,
    "stitch": _stitching,
    "whole": _whole,
}
"""How patches lie along an axis: (pixels, patch, shift, overlap) -> Cut."""


def patch_layout(
    grid: PatchGrid, mode: str = "padis", shift: tuple[int, int] = (0, 0), overlap: int = 8
) -> PatchLayout:
    """The patches of a slice, every pixel of which is in at least one.

    Args:
        mode: one of `MODES`.
        shift: of mode "padis", 0 to `grid.padding` (rows, columns); the others lie still.
        overlap: pixels that neighbours share in the modes "average", "hann" and "stitch", below the patch's side.

    Raises:
        ConfigError: another mode, a shift beyond the padding, an overlap of a whole patch.
    """
    if mode not in MODES:
        raise ConfigError(f"there is no patch mode {mode!r}; there are {', '.join(MODES)}")
    down, across = (
        _axis(n, positions, MODES[mode](n, grid.patch, moved, overlap))
        for n, positions, moved in zip(grid.shape, grid.positions, shift, strict=True)
    )
    return PatchLayout(down, across)


def _axis(n: int, positions: np.ndarray, cut: Cut) -> PatchAxis:
    side, starts, window = cut
    at = starts[:, None] + np.arange(side)
    inside = (at >= 0) & (at < n)
    total = np.bincount(at[inside], window[inside], n)
    weights = np.zeros(at.shape, np.float32)
    weights[inside] = window[inside] / total[at[inside]]
    return PatchAxis(side, starts.astype(np.int64), weights, positions, n)


def _margin(n: int, patch: int) -> int:
    return (1 + n // patch) * patch - n


def _check(slices: int, k: int, gap: int) -> None:
    if min(slices, k, gap) < 1:
        raise ConfigError(f"{slices} slices in groups of {k}, gap {gap}: each must be at least 1")
