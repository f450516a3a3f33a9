"""A prior of a whole volume, made of a denoiser for tiles of it."""

from abc import ABC, abstractmethod

import numpy as np
import torch

from volrecon.errors import ConfigError
from volrecon.priors.denoiser import Conditions, Denoiser
from volrecon.sampling import NoiseKey, uniform_integers
from volrecon.tiling import adjacent_groups, jump_groups
from volrecon.volume import Space, Volume

OFFSET, SHIFT = 1, 2
"""Purposes of random numbers."""


class Prior(ABC):
    """D of a volume: D(x) = sum of G' W D(G x) over the tiles of a partition that changes from step to step."""

    @abstractmethod
    def denoise(self, x: Volume, sigma: float, key: NoiseKey, space: Space) -> Volume:
        """The posterior mean of a volume, (z, y, x) in the linear unit, as a new volume in `space`.

        Args:
            x: x0 + sigma noise.
            sigma: noise level in the linear unit.
            key: of this step; it chooses the partition, the same for any batch and memory tier.
        """


class GroupedPrior(Prior):
    """A prior that takes slices in groups; subclasses say how one group is denoised.

    Adjacent groups with a random offset and groups of slices further apart take turns, after DiffusionBlend++ (Song
    et al. 2024): the offset and the jumps hide the seams. Where groups overlap, the mean is taken.

    Args:
        denoiser: of groups of `denoiser.slices`.
        spacing: distance of neighbouring slices in pixels (dz/dx).
        gaps: distances of slices within a group that the network knows; 0 stands for copies of one slice.
        batch: groups denoised at once; it bounds memory and changes nothing else.
    """

    def __init__(
        self, denoiser: Denoiser, *, spacing: float = 1.0, gaps: tuple[int, ...] = (1,), batch: int = 4
    ) -> None:
        self.denoiser, self.spacing, self.gaps, self.batch = denoiser, spacing, gaps, batch

    def denoise(self, x: Volume, sigma: float, key: NoiseKey, space: Space) -> Volume:
        groups, gap = self.partition(x.shape[0], key)
        count = np.bincount(groups.ravel(), minlength=x.shape[0])
        out = space.zeros(x.shape)
        for start in range(0, len(groups), self.batch):
            some = groups[start : start + self.batch]
            ids = some.ravel().tolist()
            tiles = x.gather(ids).reshape(*some.shape, *x.shape[1:])
            denoised = self.denoise_groups(tiles, sigma, gap * self.spacing, key).reshape(-1, *x.shape[1:])
            weights = torch.from_numpy(1 / count[ids]).float()
            out.scatter_add(ids, denoised * weights[:, None, None])
        return out

    @abstractmethod
    def denoise_groups(self, tiles: torch.Tensor, sigma: float, gap: float, key: NoiseKey) -> torch.Tensor:
        """D of whole slices in groups: (groups, slices, rows, columns) -> the same shape; `gap` in pixels."""

    def partition(self, slices: int, key: NoiseKey) -> tuple[np.ndarray, int]:
        """Groups (groups, k) of slice numbers for a step, and the gap within them."""
        k = self.denoiser.slices
        jumps = [gap for gap in self.gaps if gap > 1 and slices >= k * gap]
        if self.gaps == (0,) or (slices == 1 and 0 in self.gaps):
            return np.repeat(np.arange(slices)[:, None], k, axis=1), 0
        if jumps and (key.step % 2 or 1 not in self.gaps):
            gap = jumps[key.step // 2 % len(jumps)]
            return jump_groups(slices, k, gap), gap
        if 1 not in self.gaps:
            raise ConfigError(
                f"{slices} slices are too few for groups of {k} with gaps {self.gaps}; neighbours need gap 1"
            )
        offset = int(uniform_integers(key.at(key.step, OFFSET), 1, k)[0])
        return adjacent_groups(slices, k, offset), 1


class SliceGroupPrior(GroupedPrior):
    """Whole slices in groups: DiffusionBlend++."""

    @torch.no_grad()
    def denoise_groups(self, tiles: torch.Tensor, sigma: float, gap: float, key: NoiseKey) -> torch.Tensor:
        return self.denoiser(tiles, sigma, Conditions(gap))
