"""Finite differences of a slab: the gradient D of total variation and its transpose, with free ends.

Forward differences, the last one zero in every direction; in units of the in-plane voxel, so that a z spacing of k
voxels divides the z difference by k. ||D'D|| <= 4 (1/hz^2 + 1/hy^2 + 1/hx^2).
"""

import torch

from volrecon.volume import Slab

Spacing = tuple[float, float, float]
"""Voxel size (z, y, x) over the voxel size in x."""


def gradient(slab: Slab, x: torch.Tensor, spacing: Spacing) -> torch.Tensor:
    """D x on the slab and its lower halo: (below + slices, 3, y, x), components (z, y, x).

    `x` carries a halo of one slice on either side where the volume goes on.
    """
    own = x[: len(x) - slab.above]
    out = torch.zeros((len(own), 3, *x.shape[1:]))
    count = min(len(own), len(x) - 1)
    torch.sub(x[1 : count + 1], x[:count], out=out[:count, 0])
    torch.sub(own[:, 1:], own[:, :-1], out=out[:, 1, :-1])
    torch.sub(own[:, :, 1:], own[:, :, :-1], out=out[:, 2, :, :-1])
    if spacing != (1.0, 1.0, 1.0):
        out /= torch.tensor(spacing).view(3, 1, 1)
    return out


def gradient_transpose(slab: Slab, v: torch.Tensor, spacing: Spacing) -> torch.Tensor:
    """D' v on the slab: (slices, y, x).

    `v` is (below + slices, 3, y, x): the slice below the slab is needed, none above. Its last differences must be
    zero where the volume ends, as `gradient` makes them.
    """
    own = v[slab.below :]
    hz, hy, hx = spacing
    out = own[:, 0] / -hz
    out[1 - slab.below :] += v[: len(v) - 1, 0] / hz
    out[:, :-1] -= own[:, 1, :-1] / hy
    out[:, 1:] += own[:, 1, :-1] / hy
    out[:, :, :-1] -= own[:, 2, :, :-1] / hx
    out[:, :, 1:] += own[:, 2, :, :-1] / hx
    return out


def clip_to_ball(s: torch.Tensor, radius: float) -> torch.Tensor:
    """Projection of every 3-vector s[:, :, y, x] onto the ball of `radius`: s - shrink(s, radius)."""
    # Written out: torch's vector_norm over an axis of three is ten times slower on the CPU.
    length = (s[:, 0:1] ** 2).addcmul_(s[:, 1:2], s[:, 1:2]).addcmul_(s[:, 2:3], s[:, 2:3]).sqrt_()
    return s * (radius / length.clamp(min=radius)) if radius > 0 else torch.zeros_like(s)
