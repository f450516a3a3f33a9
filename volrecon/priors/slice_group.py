"""Whole slices in groups: DiffusionBlend and DiffusionBlend++ (Song et al. 2024, arXiv 2406.10211)."""

from collections.abc import Sequence

import torch

from volrecon.errors import ConfigError
from volrecon.priors.denoiser import Conditions
from volrecon.priors.partitions import Partition, neighbours
from volrecon.priors.prior import GroupedPrior
from volrecon.sampling import NoiseKey


class SliceGroupPrior(GroupedPrior):
    """Whole slices in groups that partition the volume: DiffusionBlend++; with `gaps = (0,)` slices on their own."""

    def denoise_groups(
        self, tiles: torch.Tensor, sigma: float, gap: float, key: NoiseKey, numbers: Sequence[int]
    ) -> torch.Tensor:
        return self.denoiser(tiles, sigma, Conditions(gap))


class NeighbourPrior(SliceGroupPrior):
    """Every slice as the middle of the group around it, edge slices repeated: DiffusionBlend.

    One pass takes as many groups as there are slices, k times those of `SliceGroupPrior`. `blending` has no part in it;
    of `gaps` 1 must be known, and 0 serves volumes of a single slice.
    """

    def partition(self, slices: int, key: NoiseKey) -> Partition:
        if 1 not in self.gaps:
            raise ConfigError(f"prior {self.name} knows gaps {self.gaps}; the slices around a slice need gap 1")
        return neighbours(slices, self.denoiser.slices, gap=0 if slices == 1 and 0 in self.gaps else 1)
