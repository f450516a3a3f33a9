"""What couples voxels in a penalty: differences along z, or in all three directions, as one kind of object."""

from dataclasses import dataclass
from typing import Protocol

import torch

from volrecon.solvers.differences import Spacing, clip_to_ball, gradient, gradient_transpose
from volrecon.volume import Slab


class Difference(Protocol):
    """D with free ends, the last difference zero, slab by slab; in units of the in-plane voxel."""

    def shape(self, volume: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of D x for a volume (z, y, x)."""

    def __call__(self, slab: Slab, x: torch.Tensor) -> torch.Tensor:
        """D x on the slab and its lower halo, (below + slices, ...); x carries a halo of one slice on either side."""

    def transpose(self, slab: Slab, v: torch.Tensor) -> torch.Tensor:
        """D' v on the slab, (slices, y, x); v is (below + slices, ...), its last difference zero where x ends."""

    def clip(self, s: torch.Tensor, radius: float) -> torch.Tensor:
        """s - shrink(s, radius): the projection onto the ball of the penalty's dual norm."""


@dataclass(frozen=True)
class AlongZ:
    """Dz, the forward difference of neighbouring slices: ||Dz x||_1, ||Dz'Dz|| <= 4/spacing^2.

    Attributes:
        spacing: distance of slices over the voxel size in x.
    """

    spacing: float = 1.0

    def shape(self, volume: tuple[int, ...]) -> tuple[int, ...]:
        return volume

    def __call__(self, slab: Slab, x: torch.Tensor) -> torch.Tensor:
        out = torch.zeros_like(x[: len(x) - slab.above])
        count = min(len(out), len(x) - 1)
        torch.sub(x[1 : count + 1], x[:count], out=out[:count])
        return out / self.spacing

    def transpose(self, slab: Slab, v: torch.Tensor) -> torch.Tensor:
        out = -v[slab.below :]
        out[1 - slab.below :] += v[: len(v) - 1]
        return out / self.spacing

    def clip(self, s: torch.Tensor, radius: float) -> torch.Tensor:
        return s.clamp(-radius, radius)


@dataclass(frozen=True)
class Isotropic:
    """D in z, y and x, of 3D total variation ||Dx||_{2,1}; three components a voxel, (z, 3, y, x)."""

    spacing: Spacing = (1.0, 1.0, 1.0)

    def shape(self, volume: tuple[int, ...]) -> tuple[int, ...]:
        return volume[0], 3, *volume[1:]

    def __call__(self, slab: Slab, x: torch.Tensor) -> torch.Tensor:
        return gradient(slab, x, self.spacing)

    def transpose(self, slab: Slab, v: torch.Tensor) -> torch.Tensor:
        return gradient_transpose(slab, v, self.spacing)

    def clip(self, s: torch.Tensor, radius: float) -> torch.Tensor:
        return clip_to_ball(s, radius)
