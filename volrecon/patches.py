"""Patches of slices, cut out and put back: by kernels on a GPU where cupy is installed, else by torch.

`extract` cuts, `scatter` adds up and is its adjoint; `blend` adds up by the layout's weights, so that
blend(extract(x)) = x, and `spread` is its adjoint. A part is a range of a layout's patches, row by row.
"""

from collections.abc import Iterator

import numpy as np
import torch

from volrecon import cuda
from volrecon.errors import DataError
from volrecon.tiling import PatchAxis, PatchLayout


def extract(x: torch.Tensor, layout: PatchLayout, part: range) -> torch.Tensor:
    """Patches of slices: (slices, rows, columns) -> (patches, slices, *side), zero beside the slices."""
    if _by_kernel(x):
        return cuda.patch_extract(x.contiguous(), layout, part)
    out = x.new_zeros((len(part), len(x), *layout.side))
    for n, (within, at, _) in enumerate(_places(layout.unweighted, part)):
        out[n][within] = x[at]
    return out


def spread(x: torch.Tensor, layout: PatchLayout, part: range) -> torch.Tensor:
    """Patches of slices times the layout's weights, (patches, slices, *side): the adjoint of `blend`."""
    weights = torch.zeros((len(part), 1, *layout.side))
    for n, (within, _, values) in enumerate(_places(layout, part)):
        weights[n][within] = values
    return extract(x, layout, part) * weights.to(x.device)


def blend(patches: torch.Tensor, layout: PatchLayout) -> torch.Tensor:
    """The slices that all patches of a layout make, (patches, slices, *side) -> (slices, rows, columns).

    A pixel is the weighted mean of the patches that hold it; what they hold beside the slices, or where another patch
    is stitched over them, does not matter.

    Raises:
        DataError: not all patches of the layout, or of another size.
    """
    expected = (len(layout.all), patches.shape[1], *layout.side)
    if tuple(patches.shape) != expected:
        raise DataError(f"patches of shape {tuple(patches.shape)} are to be blended; the layout has {expected}")
    if _by_kernel(patches):
        return cuda.patch_blend(patches.contiguous(), layout)
    out = patches.new_zeros((patches.shape[1], *layout.shape))
    for n, (within, at, values) in enumerate(_places(layout, layout.all)):
        out[at] += values.to(patches) * patches[n][within]
    return out


def scatter(patches: torch.Tensor, layout: PatchLayout) -> torch.Tensor:
    """The sum of all patches of a layout at their places, (slices, rows, columns): the adjoint of `extract`."""
    return blend(patches, layout.unweighted)


def positions(layout: PatchLayout, part: range, device: torch.device | str = "cpu") -> torch.Tensor:
    """y and x of every pixel of every patch in the padded slice, -1 to 1: (patches, 2, *side)."""
    return network_input(torch.empty((0, *layout.shape), device=device), layout, part)


def network_input(
    x: torch.Tensor,
    layout: PatchLayout,
    part: range,
    scale: float = 1.0,
    offset: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """scale x + offset of patches, then their positions unscaled: (patches, slices + 2, *side) of `dtype`.

    Args:
        dtype: float32, float16 or bfloat16.
    """
    if _by_kernel(x):
        return cuda.patch_extract(x.contiguous(), layout, part, scale, offset, positions=True, dtype=dtype)
    out = x.new_empty((len(part), len(x) + 2, *layout.side), dtype=dtype)
    out[:, : len(x)] = scale * extract(x, layout, part) + offset
    for n, (a, b) in enumerate(_pairs(layout, part)):
        out[n, -2] = torch.from_numpy(layout.down.coordinates(a)).to(x.device)[:, None]
        out[n, -1] = torch.from_numpy(layout.across.coordinates(b)).to(x.device)
    return out


def _by_kernel(x: torch.Tensor) -> bool:
    """Kernels have no graph; where one is wanted, torch serves on any device."""
    return x.is_cuda and cuda.installed() and not (torch.is_grad_enabled() and x.requires_grad)


Pixels = tuple[slice, slice, slice]
"""All slices, rows, columns."""


def _places(layout: PatchLayout, part: range) -> Iterator[tuple[Pixels, Pixels, torch.Tensor]]:
    """Of each patch the pixels with a weight: which of the patch, which of the slice, their weights."""
    whole = slice(None)
    for a, b in _pairs(layout, part):
        down, across = _used(layout.down, a), _used(layout.across, b)
        weights = np.multiply.outer(layout.down.weights[a, down], layout.across.weights[b, across])
        at = (whole, _moved(down, layout.down.starts[a]), _moved(across, layout.across.starts[b]))
        yield (whole, down, across), at, torch.from_numpy(weights)


def _pairs(layout: PatchLayout, part: range) -> Iterator[tuple[int, int]]:
    return (divmod(n, layout.counts[1]) for n in part)


def _used(axis: PatchAxis, k: int) -> slice:
    """The pixels of patch k that have a weight; they lie side by side."""
    found = np.flatnonzero(axis.weights[k])
    return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0)


def _moved(pixels: slice, by: int) -> slice:
    """No pixels stay no pixels, wherever they are moved."""
    return slice(max(pixels.start + int(by), 0), max(pixels.stop + int(by), 0))
