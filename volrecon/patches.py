"""Patches of slices, cut out and put back: the torch reference of what kernels do on a GPU."""

import torch

from volrecon.tiling import PatchGrid


def extract(slices: torch.Tensor, grid: PatchGrid, shift: tuple[int, int]) -> torch.Tensor:
    """The patches of a grid at a shift: (slices, rows, columns) -> (patches, slices, patch, patch), zero beside."""
    canvas = slices.new_zeros(len(slices), *(k * grid.patch for k in grid.counts))
    canvas[_inside(grid, shift)] = slices
    return _cut(canvas, grid)


def assemble(patches: torch.Tensor, grid: PatchGrid, shift: tuple[int, int]) -> torch.Tensor:
    """The slices that patches came from, (slices, rows, columns): the inverse and the adjoint of `extract`."""
    down, across = grid.counts
    blocks = patches.reshape(down, across, -1, grid.patch, grid.patch).permute(2, 0, 3, 1, 4)
    return blocks.reshape(-1, down * grid.patch, across * grid.patch)[_inside(grid, shift)]


def positions(grid: PatchGrid, shift: tuple[int, int]) -> torch.Tensor:
    """y and x of every pixel of every patch in the padded slice, -1 to 1: (patches, 2, patch, patch)."""
    down, across = (
        torch.from_numpy(whole)[moved : moved + count * grid.patch]
        for whole, moved, count in zip(grid.positions, shift, grid.counts, strict=True)
    )
    return _cut(torch.stack(torch.meshgrid(down, across, indexing="ij")), grid)


def _inside(grid: PatchGrid, shift: tuple[int, int]) -> tuple[slice, slice, slice]:
    """Where the slice lies among the patches of a shifted grid."""
    rows, columns = (slice(first, first + length) for first, length in zip(grid.origin(shift), grid.shape, strict=True))
    return slice(None), rows, columns


def _cut(canvas: torch.Tensor, grid: PatchGrid) -> torch.Tensor:
    down, across = grid.counts
    blocks = canvas.reshape(len(canvas), down, grid.patch, across, grid.patch).permute(1, 3, 0, 2, 4)
    return blocks.reshape(down * across, len(canvas), grid.patch, grid.patch)
